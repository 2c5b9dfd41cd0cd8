"""Types of users, one of each sort, and what "the same value" means."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from typing import Any, NamedTuple

import msgspec
import numpy
import pydantic

from routilux.store.codec import register


@register
class Colour(Enum):
    RED = 1
    ROSE = (2, "mixed")
    CRIMSON = 1  # noqa: PIE796 - another name of RED


@register
class Size(StrEnum):
    SMALL = "s"


@register
class Level(IntEnum):
    LOW = 1


@register
class Rights(Flag):
    READ = auto()
    WRITE = auto()


@register
class Point(NamedTuple):
    x: float
    y: float = 0.0


@register
@dataclass
class Customer:
    name: str
    colour: Colour = Colour.RED
    friends: list[Customer] = field(default_factory=list)


@register
@dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@register
@dataclass
class Greedy:
    """Changes its fields when it is made, and computes one that is no argument."""

    text: str
    calls: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.text += "!"
        self.calls += 1
        self.cache: dict[str, int] = {}


@register
class Ticket(msgspec.Struct, frozen=True, rename="camel", tag="ticket"):
    ticket_id: int
    price: Money | None = None


@register
class Loud(msgspec.Struct):
    text: str

    def __post_init__(self) -> None:
        self.text += "!"


@register
class Address(pydantic.BaseModel):
    street_name: str = pydantic.Field(alias="streetName")
    tags: set[str] = set()


@register
class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    number: int
    customer: Customer | None = None
    address: Address | None = None


@register
class Trimmed(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def without_first(cls, text: str) -> str:
        return text[1:]


@register
class Names(pydantic.RootModel[list[str]]):
    pass


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and self.degrees == other.degrees

    __hash__ = None  # type: ignore[assignment]


register(Celsius, "weather.Celsius", encode=lambda value: value.degrees, decode=Celsius)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type all the way down; NaN is itself, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (one != one and other != other)
    if isinstance(one, complex):
        return same([one.real, one.imag], [other.real, other.imag])
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, (numpy.ndarray, numpy.generic)):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, Customer):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    return bool(one == other) and getattr(one, "fold", None) == getattr(other, "fold", None)
