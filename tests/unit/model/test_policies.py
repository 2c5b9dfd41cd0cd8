"""The rule of each activation policy, and what a policy may be made of and answer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from routilux.errors import (
    InvalidTypeError,
    InvalidValueError,
    RoutiluxError,
    UnknownSlotError,
)
from routilux.model.policy import (
    WAIT,
    ActivationPolicy,
    Decision,
    Fire,
    SlotView,
    SlotViews,
    WaitUntil,
    all_slots_ready_policy,
    batch_size_policy,
    check_decision,
    custom_policy,
    immediate_policy,
    policy_from_dict,
    time_interval_policy,
)
from tests.unit.model.samples import refusal, table


def views(
    now: float = 0.0, last_fired: float | None = None, flushing: bool = False, **slots: Any
) -> SlotViews:
    """Slots given as lists of (id, payload) or (id, payload, job)."""
    return SlotViews(
        {
            name: SlotView(
                name, [(i[0], name, i[1], i[2] if len(i) > 2 else None, "x.y", 0.0) for i in items]
            )
            for name, items in slots.items()
        },
        now=now,
        last_fired=last_fired,
        flushing=flushing,
    )


def items(*ids: int) -> list[tuple[int, dict[str, int]]]:
    return [(number, {"n": number}) for number in ids]


def keyed(*pairs: tuple[int, str]) -> list[tuple[int, dict[str, str], str]]:
    return [(number, {"k": key}, key) for number, key in pairs]


RULES: list[tuple[str, ActivationPolicy, SlotViews, Decision]] = [
    ("nothing", immediate_policy(), views(a=[], b=[]), WAIT),
    ("oldest over all slots", immediate_policy(), views(a=items(5, 6), b=items(3)), Fire({"b": 1})),
    ("one is missing", all_slots_ready_policy(), views(a=items(1), b=[]), WAIT),
    ("no slots", all_slots_ready_policy(), views(), WAIT),
    ("one of each", all_slots_ready_policy(), views(a=items(1, 3), b=items(2)), Fire({"a": 1, "b": 1})),
    ("by job, none", all_slots_ready_policy("job"), views(a=keyed((1, "x")), b=keyed((2, "y"))), WAIT),
    (
        "by job, beyond the head",
        all_slots_ready_policy("job"),
        views(a=keyed((1, "x"), (3, "y")), b=keyed((2, "y"))),
        Fire({"a": (1,), "b": (0,)}),
    ),
    (
        "by key, completed first goes first",
        all_slots_ready_policy("k"),
        views(a=keyed((1, "x"), (2, "y")), b=keyed((3, "y"), (4, "x"))),
        Fire({"a": (1,), "b": (0,)}),
    ),
    (
        "by key, oldest of equal ones",
        all_slots_ready_policy("k"),
        views(a=keyed((1, "x"), (2, "x")), b=keyed((3, "x"))),
        Fire({"a": (0,), "b": (0,)}),
    ),
    ("too few", batch_size_policy(2), views(a=items(1)), WAIT),
    ("exactly n", batch_size_policy(2), views(a=items(1, 2, 3)), Fire({"a": 2})),
    ("n of each", batch_size_policy(2), views(a=items(1, 2, 3), b=items(4)), WAIT),
    ("drain", batch_size_policy(2), views(a=items(1, 2, 3), b=[], flushing=True), Fire({"a": 2})),
    ("drain, not wanted", batch_size_policy(2, flush=False), views(a=items(1), flushing=True), WAIT),
    ("drain, empty", batch_size_policy(2), views(a=[], flushing=True), WAIT),
    ("interval, nothing", time_interval_policy(5), views(a=[], now=9), WAIT),
    ("interval, first", time_interval_policy(5), views(a=items(1), now=9), Fire({"a": 1})),
    ("interval, too early", time_interval_policy(5), views(a=items(1), now=9, last_fired=6), WaitUntil(11)),
    (
        "interval, all",
        time_interval_policy(5),
        views(a=items(1, 2), b=items(3), now=11, last_fired=6),
        Fire({"a": 2, "b": 1}),
    ),
    (
        "interval, drain",
        time_interval_policy(5),
        views(a=items(1), now=9, last_fired=6, flushing=True),
        WaitUntil(11.0),
    ),
]


@table(("name", "policy", "seen", "decision"), RULES)
def test_rule(name: str, policy: ActivationPolicy, seen: SlotViews, decision: Decision) -> None:
    assert policy(seen, None) == decision
    assert check_decision(decision, seen) is decision


@table(
    ("payload", "fragments"),
    [
        ({"other": 1}, ("no payload key 'k'", "slot 'a'", "'other'", "emit 'k' too")),
        ({"k": []}, ("payload key 'k'", "slot 'a'", "[] (list)", "hashable")),
    ],
)
def test_what_cannot_be_joined_by_a_key_is_named(payload: dict[str, Any], fragments: tuple[str, ...]) -> None:
    seen = views(a=[(1, payload)], b=items(2))
    refusal(lambda: all_slots_ready_policy("k")(seen, None), InvalidValueError, *fragments)


def one_new(slots: SlotViews, state: Any) -> bool:
    return slots["a"].consume_one_new() == {"n": 1}


def all_new(slots: SlotViews, state: Any) -> tuple[bool, dict[str, Any], str]:
    slots["a"].consume_one_new()
    left = slots["a"].get_unconsumed_count()
    assert left == len(slots["a"].consume_all_new()) == 1
    assert slots["a"].consume_one_new() is None
    return True, {"ignored": []}, "go"


ANSWERS: list[tuple[Callable[..., Any], Decision]] = [
    (lambda slots, state: True, Fire({"a": 2, "b": 1})),
    (lambda slots, state: False, WAIT),
    (lambda slots, state: WAIT, WAIT),
    (lambda slots, state: WaitUntil(3.0), WaitUntil(3.0)),
    (lambda slots, state: Fire({"a": (1,)}, "hi"), Fire({"a": (1,)}, "hi")),
    (lambda slots, state: (False, None, None), WAIT),
    (lambda slots, state: (True, None, "all"), Fire({"a": 2, "b": 1}, "all")),
    (lambda slots, state: (True, {"a": [slots["a"][0]]}, None), Fire({"a": 1})),
    (lambda slots, state: (True, {}, None), Fire({})),
    (lambda slots, state: state, Fire({"a": 2, "b": 1})),
    (one_new, Fire({"a": 1})),
    (all_new, Fire({"a": 2}, "go")),
]


@table(("fn", "decision"), ANSWERS)
def test_a_custom_policy_understands(fn: Callable[..., Any], decision: Decision) -> None:
    assert custom_policy(fn)(views(a=items(1, 2), b=items(3)), True) == decision


def test_a_custom_policy_that_says_yes_to_nothing_waits() -> None:
    assert custom_policy(lambda slots, state: True)(views(a=[]), None) is WAIT
    assert custom_policy(lambda slots, state: (True, None, 1))(views(a=[]), None) is WAIT


@table("answer", [None, 1, "yes", (True,), (True, None), (1, None, None), (True, ["a"], None)])
def test_a_custom_policy_that_answers_anything_else_is_named(answer: object) -> None:
    def decide(slots: SlotViews, state: Any) -> object:
        return answer

    fragments = ("decide returned", repr(answer), "True or False", "(should_activate, data_slice, message)")
    refusal(lambda: custom_policy(decide)(views(a=items(1)), None), InvalidTypeError, *fragments)


IMPOSSIBLE: list[tuple[object, type[RoutiluxError], tuple[str, ...]]] = [
    (Fire({}), InvalidValueError, ("takes nothing", "WAIT")),
    (Fire({"a": 0}), InvalidValueError, ("takes nothing",)),
    (Fire({"a": ()}), InvalidValueError, ("takes nothing",)),
    (Fire({"c": 1}), UnknownSlotError, ("no slot 'c'", "'a', 'b'")),
    (Fire({"a": 3}), InvalidValueError, ("Fire.take['a']", "0 to 2 items")),
    (Fire({"a": -1}), InvalidValueError, ("Fire.take['a']",)),
    (Fire({"a": (0, 2)}), InvalidValueError, ("ascending positions from 0 to 1",)),
    (Fire({"a": (1, 0)}), InvalidValueError, ("ascending",)),
    (Fire({"a": (0, 0)}), InvalidValueError, ("ascending",)),
    (Fire({"a": (-1, 0)}), InvalidValueError, ("ascending",)),
    (Fire({"a": True}), InvalidTypeError, ("a number of items",)),
    (Fire({"a": ("0",)}), InvalidTypeError, ("a number of items",)),
    (Fire(["a"]), InvalidTypeError, ("Fire.take", "mapping")),
    (None, InvalidTypeError, ("Fire, WAIT or WaitUntil",)),
]


@table(("decision", "error", "fragments"), IMPOSSIBLE)
def test_a_decision_that_cannot_be_carried_out_is_refused(
    decision: object, error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    refusal(lambda: check_decision(decision, views(a=items(1, 2), b=[])), error, *fragments)


BAD_ARGUMENTS: list[tuple[Callable[[], object], type[RoutiluxError], str]] = [
    (lambda: batch_size_policy(0), InvalidValueError, "at least 1 item"),
    (lambda: batch_size_policy(True), InvalidTypeError, "a whole number"),
    (lambda: batch_size_policy(2.0), InvalidTypeError, "a whole number"),
    (lambda: batch_size_policy(100, False), InvalidTypeError, "write flush=False"),
    (lambda: batch_size_policy(2, age=-1), InvalidValueError, "0 seconds or more"),
    (lambda: all_slots_ready_policy(timeout="5"), InvalidTypeError, "a number of seconds"),
    (lambda: batch_size_policy(2, flush=1), InvalidTypeError, "True or False"),
    (lambda: time_interval_policy(-1), InvalidValueError, "0 seconds or more"),
    (lambda: time_interval_policy(float("nan")), InvalidValueError, "0 seconds or more"),
    (lambda: time_interval_policy(float("inf")), InvalidValueError, "0 seconds or more"),
    (lambda: time_interval_policy(True), InvalidTypeError, "a number of seconds"),
    (lambda: time_interval_policy("1"), InvalidTypeError, "a number of seconds"),
    (lambda: all_slots_ready_policy(""), InvalidTypeError, '"job" or a payload key'),
    (lambda: all_slots_ready_policy(3), InvalidTypeError, '"job" or a payload key'),
    (lambda: custom_policy("fn"), InvalidTypeError, "a callable"),
]


@table(("make", "error", "fragment"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(
    make: Callable[[], object], error: type[RoutiluxError], fragment: str
) -> None:
    refusal(make, error, fragment)


WRITTEN: list[tuple[ActivationPolicy, dict[str, Any], str]] = [
    (immediate_policy(), {"policy": "immediate"}, "ImmediatePolicy()"),
    (all_slots_ready_policy(), {"policy": "all_slots_ready"}, "AllSlotsReadyPolicy(by=None, timeout=None)"),
    (
        all_slots_ready_policy("job"),
        {"policy": "all_slots_ready", "by": "job"},
        "AllSlotsReadyPolicy(by='job', timeout=None)",
    ),
    (
        all_slots_ready_policy("order", timeout=5),
        {"policy": "all_slots_ready", "by": "order", "timeout": 5.0},
        "AllSlotsReadyPolicy(by='order', timeout=5.0)",
    ),
    (batch_size_policy(3), {"policy": "batch_size", "size": 3}, "BatchSizePolicy(n=3, age=None, flush=True)"),
    (
        batch_size_policy(3, age=1),
        {"policy": "batch_size", "size": 3, "age": 1.0},
        "BatchSizePolicy(n=3, age=1.0, flush=True)",
    ),
    (
        batch_size_policy(3, flush=False),
        {"policy": "batch_size", "size": 3, "flush": False},
        "BatchSizePolicy(n=3, age=None, flush=False)",
    ),
    (time_interval_policy(2), {"policy": "time_interval", "seconds": 2.0}, "TimeIntervalPolicy(seconds=2.0)"),
]


@table(("policy", "data", "text"), WRITTEN)
def test_a_policy_is_a_value_that_can_be_written_and_read(
    policy: ActivationPolicy, data: dict[str, Any], text: str
) -> None:
    same = policy_from_dict(data)
    assert (same, hash(same), policy.to_dict(), repr(policy)) == (policy, hash(policy), data, text)
    assert [other for other, _, _ in WRITTEN if other == policy] == [policy]
    assert copy.deepcopy(policy) == pickle.loads(pickle.dumps(policy)) == policy
    assert (policy.user_code, policy.name) == (False, data["policy"])
    with pytest.raises(AttributeError, match="cannot be"):
        policy.n = 5


def test_a_custom_policy_is_written_for_people_only() -> None:
    policy = custom_policy(one_new)
    assert (policy.user_code, policy == custom_policy(one_new)) == (True, True)
    assert policy.to_dict() == {"policy": "custom", "fn": f"{__name__}.one_new"}
    refusal(lambda: policy_from_dict(policy.to_dict()), InvalidValueError, "set a custom policy in Python")


@table(
    ("data", "fragments"),
    [
        ({"policy": "batchsize", "size": 3}, ("no activation policy 'batchsize'", "'batch_size'")),
        ({}, ("no activation policy None",)),
        ({"policy": "batch_size", "n": 3}, ("no option 'n'", "'size'")),
        ({"policy": "batch_size"}, ("needs 'size'",)),
        ({"policy": "batch_size", "flush": False}, ("needs 'size'",)),
        ({"policy": "time_interval"}, ("needs 'seconds'",)),
    ],
)
def test_a_policy_is_not_read_from_what_was_not_written(
    data: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    refusal(lambda: policy_from_dict(data), InvalidValueError, *fragments)


def test_a_policy_of_your_own_has_a_name_and_is_user_code() -> None:
    class Pairs(ActivationPolicy):
        __slots__ = ("size",)
        name = "pairs"
        size: int

        def __init__(self, size: int) -> None:
            self._init(size=size)

        def __call__(self, slots: SlotViews, state: Any) -> Decision:
            return WAIT

    assert (Pairs(2), Pairs(2).user_code, Pairs(2).to_dict()) == (Pairs(2), True, {"policy": "pairs"})
    assert Pairs(2) != Pairs(3)


def test_views_are_sequences_and_mappings() -> None:
    seen = views(a=keyed((7, "x"), (9, "y")), b=[])
    assert (list(seen), len(seen), list(seen["a"])) == (["a", "b"], 2, [{"k": "x"}, {"k": "y"}])
    assert (seen["a"].ids, seen["a"].jobs, seen["a"][-1], seen["a"][:1]) == (
        [7, 9],
        ["x", "y"],
        {"k": "y"},
        [{"k": "x"}],
    )
    refusal(lambda: seen["A"], UnknownSlotError, "no slot 'A'", "'a', 'b'")
    assert seen.get("A") is None
    assert copy.deepcopy(WAIT) is pickle.loads(pickle.dumps(WAIT)) is WAIT
