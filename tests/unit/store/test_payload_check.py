"""What ``type=`` on a port accepts."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable
from uuid import UUID

import msgspec
import numpy
import pydantic
import pytest

from routilux.errors import InvalidTypeError
from routilux.kernel.activation import SlotData
from routilux.store.codec import JsonCodec
from tests.unit.store.samples import Address, Names, Ticket, same


class Colour(Enum):
    RED = 1


class Fruit(Enum):
    APPLE = 1


class Size(StrEnum):
    SMALL = "s"


class Level(IntEnum):
    LOW = 1


class Pair(NamedTuple):
    x: int
    y: int


@runtime_checkable
class Closable(Protocol):
    def close(self) -> None: ...


class Handle:
    def close(self) -> None:
        pass


class Celsius(float):
    pass


class Bag(dict[str, int]):
    pass


@dataclass
class Customer:
    name: str
    age: int = 0


class Person(pydantic.BaseModel):
    name: str
    born: datetime | None = None
    parent: Person | None = None


class Regular(Customer):
    pass


@dataclass
class Everything:
    n: int = 0
    x: float = 0.0
    text: str = ""
    flag: bool = False
    data: bytes = b""
    price: Decimal = Decimal(0)
    when: datetime | None = None
    id: UUID | None = None
    customer: Customer | None = None
    customers: list[Customer] = field(default_factory=list)
    by_name: dict[str, Customer] = field(default_factory=dict)
    colour: Colour = Colour.RED
    colours: list[Colour] = field(default_factory=list)
    by_colour: dict[Colour, int] = field(default_factory=dict)
    size: Size = Size.SMALL
    level: Level = Level.LOW
    mode: Literal["r", "w"] = "r"
    pair: Pair | None = None
    tags: set[str] = field(default_factory=set)
    both: tuple[int, str] = (0, "")
    sequence: Sequence[int] = ()
    handle: Handle | None = None
    array: numpy.ndarray | None = None
    call: Callable[[], None] | None = None
    closable: Closable | None = None
    person: Person | None = None
    people: list[Person] = field(default_factory=list)
    ticket: Ticket | None = None
    anything: Any = None
    thing: object = None
    warm: Celsius | None = None
    bag: Bag | None = None
    few: Annotated[list[int], msgspec.Meta(max_length=2)] = field(default_factory=list)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


CHECK = JsonCodec().checker(Everything)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"unknown": object()},
        {"n": 2**80, "x": 1.5, "text": "a", "flag": True, "data": b"x"},
        {"x": 1},
        {"price": Decimal("1.1"), "when": datetime(2026, 1, 31), "id": UUID(int=7)},
        {"customer": Customer("Ada")},
        {"customer": Regular("Ada")},
        {"customer": {"name": "Ada"}, "customers": [Customer("Ada"), {"name": "Bob", "age": 7}]},
        {"by_name": {"Ada": Customer("Ada")}},
        {"colour": Colour.RED, "colours": [Colour.RED, Colour.RED], "by_colour": {Colour.RED: 1}},
        {"colour": 1, "size": "s", "level": 1},
        {"size": Size.SMALL, "level": Level.LOW, "text": Size.SMALL, "n": Level.LOW},
        {"colour": Colour.RED, "customer": Customer("Ada"), "when": datetime(2026, 1, 31), "tags": {"a"}},
        {"x": numpy.float64(1.5)},
        {"mode": "w", "pair": Pair(1, 2), "tags": {"a"}, "both": (1, "a"), "sequence": (1, 2)},
        {"handle": Handle(), "array": numpy.zeros(2), "call": print, "closable": Handle()},
        {"person": Person(name="Ada"), "people": [{"name": "Bob"}], "ticket": Ticket(1)},
        {"anything": Handle(), "thing": Colour.RED},
        {
            "colour": Colour.RED,
            "thing": Colour.RED,
            "anything": [Fruit.APPLE],
            "warm": Celsius(1),
            "bag": Bag(a=1),
        },
    ],
)
def test_payloads_that_fit(payload):
    before = deepcopy(payload)
    CHECK(payload)
    assert payload.keys() == before.keys()
    assert all(type(payload[key]) is type(before[key]) for key in payload)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"n": "1"}, "at $.n: expected int, got str"),
        ({"n": True}, "at $.n: expected int, got bool"),
        ({"n": 1.0}, "at $.n: expected int, got float"),
        ({"n": None}, "at $.n: expected int, got null"),
        ({"x": "1"}, "at $.x: expected float, got str"),
        ({"text": b"a"}, "at $.text: expected str, got bytes"),
        ({"data": "AAAA"}, "at $.data: expected bytes, got str"),
        ({"price": "1.1"}, "at $.price: expected decimal, got str"),
        ({"when": "2026-01-31T12:00:00"}, "at $.when: expected datetime | null, got str"),
        ({"id": str(UUID(int=7))}, "at $.id: expected uuid | null, got str"),
        ({"customer": "Ada"}, "at $.customer: expected object | null, got str"),
        ({"customer": {}}, "at $.customer: object missing required field name"),
        ({"customers": [Customer("Ada"), {"name": 7}]}, "at $.customers[1].name: expected str, got int"),
        ({"by_name": {"Ada": 7}}, "at $.by_name[...]: expected object, got int"),
        ({"colour": 7}, "at $.colour: invalid enum value 7"),
        ({"colour": Fruit.APPLE}, "at $.colour: expected int, got Fruit"),
        ({"n": Fruit.APPLE}, "at $.n: expected int, got Fruit"),
        (
            {"colours": [Colour.RED, Fruit.APPLE]},
            "at $.colours[1]: expected int, got Fruit",
        ),
        ({"colour": Colour.RED, "n": "1"}, "at $.n: expected int, got str"),
        ({"mode": "x"}, "at $.mode: invalid enum value 'x'"),
        ({"both": (1,)}, "at $.both: expected array of length 2, got 1"),
        ({"handle": 7}, "at $.handle: expected Handle, got int"),
        ({"call": 7}, "at $.call: expected Callable, got int"),
        ({"array": [1]}, "at $.array: expected ndarray, got list"),
        ({"person": {"name": 7}}, "at $.person: at $.name: input should be a valid string, got int"),
        ({"person": 7}, "at $.person: expected Person, got int"),
        ({"few": [1, 2, 3]}, "at $.few: expected array of length <= 2"),
        ({1: 2}, "at key in $: expected str"),
    ],
)
def test_payloads_that_do_not_fit(payload, problem):
    with pytest.raises(TypeError) as caught:
        CHECK(payload)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("type_", "good", "bad", "problem"),
    [
        (Movie, {"title": "M"}, {"title": "M", "year": "1931"}, "at $.year: expected int, got str"),
        (Movie, {"title": "M", "year": 1931, "more": 1}, {}, "at $: object missing required field title"),
        (Ticket, {"ticketId": 1}, {"ticketId": "x"}, "at $.ticketId: expected int, got str"),
        (Person, {"name": "Ada"}, {"name": 7}, "at $.name: input should be a valid string, got int"),
        (Person, {"name": "Ada"}, {}, "at $.name: field required"),
        (
            Person,
            {"name": "Ada", "parent": Person(name="Bob")},
            {"name": "Ada", "parent": {"name": "Bob", "parent": {"name": None}}},
            "at $.parent.parent.name: input should be a valid string, got NoneType",
        ),
        (Address, {"streetName": "x"}, {"street_name": "x"}, "at $.streetName: field required"),
    ],
)
def test_every_kind_of_declared_type(type_, good, bad, problem):
    check = JsonCodec().checker(type_)
    check(good)
    with pytest.raises(TypeError) as caught:
        check(bad)
    assert str(caught.value) == problem


def test_a_pydantic_model_keeps_its_own_rules():
    payload = {"name": "Ada", "born": "2026-01-31"}
    JsonCodec().checker(Person)(payload)
    assert payload == {"name": "Ada", "born": "2026-01-31"}


def test_the_payload_stays_the_object_that_it_is():
    customer, colours = Customer("Ada"), [Colour.RED]
    payload = {"customer": customer, "colours": colours, "x": 1}
    CHECK(payload)
    assert payload["customer"] is customer
    assert payload["colours"] is colours
    assert same(payload["x"], 1)


@pytest.mark.parametrize("kind", [dict, SlotData, ChainMap], ids=lambda kind: kind.__name__)
def test_a_payload_is_any_mapping(kind):
    CHECK(kind({"n": 1}))
    with pytest.raises(TypeError, match=r"at \$\.n: expected int, got str"):
        CHECK(kind({"n": "1"}))


class Opaque(Protocol):
    def open(self) -> None: ...


@dataclass
class Opening:
    door: Opaque


def test_a_protocol_that_cannot_be_asked():
    with pytest.raises(TypeError, match=r"at \$.door: .* with @runtime_checkable protocols"):
        JsonCodec().checker(Opening)({"door": Handle()})


def test_a_payload_that_contains_itself():
    payload: dict[str, Any] = {}
    payload["anything"] = payload
    CHECK(payload)
    with pytest.raises(TypeError, match="nested too deep"):
        CHECK({**payload, "n": "1"})


class Link(TypedDict):
    next: NotRequired[Link]


def test_a_payload_of_a_recursive_type_that_contains_itself():
    payload: dict[str, Any] = {}
    payload["next"] = payload
    with pytest.raises(TypeError, match="nested too deep"):
        JsonCodec().checker(Link)(payload)


@dataclass
class Validated:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n is negative")
        if self.n > 9:
            raise KeyError("n is large")


class Checked(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def positive(cls, n: int) -> int:
        if n > 9:
            raise KeyError("n is large")
        assert n >= 0, "n is negative"
        return n


@pytest.mark.parametrize("type_", [Validated, Checked])
@pytest.mark.parametrize(("n", "problem"), [(-1, "n is negative"), (10, "n is large")])
def test_the_types_own_checks_count(type_, n, problem):
    with pytest.raises(TypeError, match=problem):
        JsonCodec().checker(type_)({"n": n})


@dataclass
class Either:
    value: Customer | Validated


@dataclass
class Dangling:
    value: Missing  # noqa: F821


@pytest.mark.parametrize(
    ("type_", "reason"),
    [(Either, "may not contain more than one dataclass"), (Dangling, "name 'Missing' is not defined")],
)
def test_a_type_that_cannot_be_checked_is_refused_at_once(type_, reason):
    with pytest.raises(InvalidTypeError, match=reason) as caught:
        JsonCodec().checker(type_)
    assert "annotate a field that can be anything with object" in str(caught.value)


def test_a_root_model_is_no_payload_but_is_asked():
    with pytest.raises(TypeError, match=r"at \$: input should be a valid list, got dict"):
        JsonCodec().checker(Names)({"root": ["a"]})
