"""Which declared types of events and slots fit, and how a misfit is reported by ``connect()``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
)

import msgspec
import pydantic
import pytest

from routilux.errors import IncompatibleTypesError
from routilux.model.flow import Flow
from routilux.model.routine import Routine
from tests.unit.model.samples import refusal, shape, table

UserId = NewType("UserId", int)
T = TypeVar("T")


class Closable(Protocol):
    def close(self) -> None: ...


@dataclass
class Row:
    name: str
    size: int
    tags: list[str] = field(default_factory=list)
    kinds: ClassVar[int] = 3


class RowDict(TypedDict):
    name: str
    size: int
    note: NotRequired[str]


class RowStruct(msgspec.Struct, kw_only=True):
    note: str = ""
    name: str
    size: int


class RowModel(pydantic.BaseModel):
    name: str
    size: int
    note: str = ""


class RowWithoutSize(TypedDict):
    name: str


class RowWithMaybeSize(TypedDict):
    name: str
    size: NotRequired[int]


class RowWithTextSize(TypedDict):
    name: str
    size: str


class RowWithBadNote(TypedDict):
    name: str
    size: int
    note: int


ROWS = [Row, RowDict, RowStruct, RowModel]


def connect(event_type: Any, slot_type: Any, mapping: dict[str, str] | None = None) -> Flow:
    source, target = Routine(), Routine()
    source.add_event("out", type=event_type)
    target.add_slot("in", type=slot_type)
    flow = Flow("f")
    flow.add_routine(source, "a")
    flow.add_routine(target, "b")
    flow.connect("a", "out", "b", "in", mapping=mapping)
    return flow


@pytest.mark.parametrize("slot_type", [*ROWS, None])
@pytest.mark.parametrize("event_type", [*ROWS, None])
def test_the_kinds_of_types_fit_each_other(event_type: Any, slot_type: Any) -> None:
    assert len(connect(event_type, slot_type).connections) == 1


@pytest.mark.parametrize("slot_type", ROWS)
@table(
    ("event_type", "fragments"),
    [
        (RowWithoutSize, ("field 'size' needs int", "gives nothing")),
        (RowWithMaybeSize, ("field 'size' needs int", "may be left out")),
        (RowWithTextSize, ("field 'size' needs int", "gives str")),
    ],
)
def test_a_misfit_is_refused_by_field(event_type: Any, slot_type: Any, fragments: tuple[str, ...]) -> None:
    ends = ("event 'a.out'", event_type.__name__, "slot 'b.in'", slot_type.__name__, "mapping=")
    error = refusal(lambda: connect(event_type, slot_type), IncompatibleTypesError, *fragments, *ends)
    assert isinstance(error, IncompatibleTypesError)
    assert error.field == "size"


@pytest.mark.parametrize("slot_type", [RowDict, RowStruct, RowModel])
def test_an_optional_field_is_checked_if_it_is_given(slot_type: Any) -> None:
    refusal(lambda: connect(RowWithBadNote, slot_type), IncompatibleTypesError, "field 'note'", "gives int")


def test_a_refused_connection_leaves_none() -> None:
    flow = connect(Row, RowDict)
    wrong = Routine()
    wrong.add_slot("in", type=RowWithTextSize)
    flow.add_routine(wrong, "c")
    before = shape(flow)
    refusal(lambda: flow.connect("a", "out", "c", "in"), IncompatibleTypesError)
    assert shape(flow) == before


def test_keys_are_renamed_before_they_are_compared() -> None:
    class Source(TypedDict):
        title: str
        size: int

    assert connect(Source, Row, {"title": "name"}).connections
    refusal(lambda: connect(Source, Row), IncompatibleTypesError, "field 'name'")
    refusal(lambda: connect(Row, Row, {"name": "title"}), IncompatibleTypesError, "field 'name'")


class Flexible:
    """As a pydantic type that takes more than its own instances."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any: ...


class Parent:
    pass


class Child(Parent):
    pass


@dataclass
class Tree:
    value: int
    left: Optional[Tree] = None  # noqa: UP045 - both spellings are in use
    right: Tree | None = None


@dataclass
class SameTree:
    value: int
    left: SameTree | None = None
    right: SameTree | None = None


@dataclass
class TextTree:
    value: str
    left: TextTree | None = None


FITS: list[tuple[Any, Any]] = [
    (int, int),
    (int, Any),
    (Any, int),
    (int, object),
    (int, float),
    (float, complex),
    (bool, int),
    (Child, Parent),
    (int, int | str),
    (Literal[1, 2], int),
    (Literal["a"], Literal["a", "b"]),
    (int | None, Optional[int]),  # noqa: UP045 - both spellings are in use
    (None, int | None),
    (list[int], list[int]),
    (list[bool], Sequence[int]),
    (list, list[int]),
    (list[int], list),
    (dict[str, int], Mapping[str, float]),
    (tuple[int, ...], tuple[int, ...]),
    (tuple[int, str], tuple[int, str]),
    (Annotated[int, "metres"], int),
    (int, Annotated[int, "metres"]),
    (UserId, int),
    (int, UserId),
    (Row, RowDict),
    (list[Row], list[RowStruct]),
    (dict, Row),
    (Tree, SameTree),
    (int, T),
    (int, Closable),
    (int, "Undefined"),
    ("Child", Parent),
    (str, Flexible),
]

MISFITS: list[tuple[Any, Any]] = [
    (float, int),
    (int, str),
    (int, bool),
    (Parent, Child),
    (int | str, int),
    (int | None, int),
    (str, Literal["a"]),
    (Literal["a", "c"], Literal["a", "b"]),
    (Literal[1], str),
    (list[str], list[int]),
    (Sequence[int], list[int]),
    (dict[str, str], dict[str, int]),
    (tuple[int, str], tuple[int]),
    (tuple[str, ...], tuple[int, ...]),
    (RowWithoutSize, RowDict),
    (list[RowWithTextSize], list[Row]),
    (int, Row),
    (Tree, TextTree),
]


def holding(annotation: Any) -> Any:
    return TypedDict("Holding", {"value": annotation})


@table(("given", "wanted"), FITS)
def test_fits(given: Any, wanted: Any) -> None:
    assert connect(holding(given), holding(wanted)).connections


@table(("given", "wanted"), MISFITS)
def test_misfits(given: Any, wanted: Any) -> None:
    refusal(lambda: connect(holding(given), holding(wanted)), IncompatibleTypesError, "field 'value' needs")


def test_types_declared_inside_a_function_are_understood_as_far_as_their_names_go() -> None:
    class Local:
        pass

    @dataclass
    class Given:
        size: str
        local: Local

    @dataclass
    class Wanted:
        size: int
        local: int

    refusal(lambda: connect(Given, Wanted), IncompatibleTypesError, "field 'size' needs int")


def test_a_subclass_has_the_fields_of_its_bases() -> None:
    class Longer(RowDict):
        length: int

    @dataclass
    class LongerRow(Row):
        length: int = 0

    assert connect(Longer, Row).connections
    assert connect(LongerRow, Row).connections
    refusal(lambda: connect(RowDict, Longer), IncompatibleTypesError, "field 'length'")
