"""The built-in routines for data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from routilux import ConfigurationError, Flow, Routine, Runtime
from routilux.routines import Filter, Flatten, Map, Pick, Reduce, Sort, Split, Validate
from routilux.testing import SimulatedRuntime, simulated
from tests.unit.routines.running import emitted, only, over_seeds, saved_in_the_middle

FIELDS = {
    "total": {"sum": "n"},
    "least": {"min": "n"},
    "most": {"max": "n"},
    "mean": {"mean": "n"},
    "odd": {"count": "n % 2 == 1"},
    "first": {"first": "n"},
    "last": {"last": "n"},
    "all": {"collect": "n"},
}

SCHEMA = {
    "type": "object",
    "required": ["date"],
    "properties": {"rain": {"type": "number", "minimum": 0}, "date": {"pattern": "^[0-9-]+$"}},
}


@pytest.mark.parametrize(
    ("routine", "payload", "expected"),
    [
        (Map().set_config(fields={"a": "b", "b": "a"}), {"a": 1, "b": 2}, ("output", {"a": 2, "b": 1})),
        (Map().set_config(fields={"c": "a + 1"}, keep=False), {"a": 1}, ("output", {"c": 2})),
        (Map().set_config(fields={"c": "a"}, drop=["a"]), {"a": 1}, ("output", {"c": 1})),
        (Filter().set_config(when="n > 1"), {"n": 2}, ("output", {"n": 2})),
        (Filter().set_config(when="n > 1"), {"n": 1}, ("rejected", {"n": 1})),
        (Flatten(), {"a": {"b": {"c": 1}}, "d": [1]}, ("output", {"a.b.c": 1, "d": [1]})),
        (Flatten().set_config(depth=1), {"a": {"b": {"c": 1}}}, ("output", {"a.b": {"c": 1}})),
        (Flatten().set_config(lists=True, separator="/"), {"a": [{"b": 1}, 2]}, ("output", {"a/0/b": 1, "a/1": 2})),
        (Flatten(), {"a": {}}, ("output", {"a": {}})),
        (Pick().set_config(keys=["b", "x"]), {"a": 1, "b": 2}, ("output", {"b": 2})),
        (Pick().set_config(keys=["x"], missing="null"), {"a": 1}, ("output", {"x": None})),
    ],
)  # fmt: skip
def test_one_payload_gives_one(routine: Routine, payload: Any, expected: Any) -> None:
    kind = type(routine)
    assert emitted(kind().set_config(**routine.config), [payload]) == [expected]


@pytest.mark.parametrize(
    ("routine", "payload", "reason"),
    [
        (Map().set_config(fields={"c": "a.b"}), {"a": 1}, "a.b"),
        (Filter().set_config(when="n > 1"), {}, "'n'"),
        (Flatten(), {"a": {"b": 1}, "a.b": 2}, "'a.b'"),
        (Pick().set_config(keys=["x"], missing="error"), {"a": 1}, "no 'x', only 'a'"),
        (Reduce().set_config(fields={"s": {"sum": "n"}}), {"n": "x"}, "expected a number, got str"),
        (Sort().set_config(by="n"), {"n": [1]}, "ordered by a number or a text"),
    ],
)
def test_a_payload_that_does_not_fit_is_told_with_the_reason(
    routine: Routine, payload: Any, reason: str
) -> None:
    kind = type(routine)
    [data] = only("error", emitted(kind().set_config(**routine.config), [payload]))
    assert data["payload"] == payload
    assert reason in data["reason"]


class TestReduce:
    @over_seeds
    def test_every_fold_by_key_on_drain(self, routilux_seed: int) -> None:
        reduce = Reduce().set_config(key="k", name="k", fields=FIELDS)
        found = emitted(reduce, [{"k": "ab"[n % 2], "n": n} for n in range(6)], seed=routilux_seed)
        assert found == [
            (
                "output",
                {"k": "a", "total": 6, "least": 0, "most": 4, "mean": 2.0, "odd": 0, "first": 0, "last": 4,
                 "all": [0, 2, 4]},
            ),
            (
                "output",
                {"k": "b", "total": 9, "least": 1, "most": 5, "mean": 3.0, "odd": 3, "first": 1, "last": 5,
                 "all": [1, 3, 5]},
            ),
        ]  # fmt: skip

    def test_sums_do_not_drift(self) -> None:
        reduce = Reduce().set_config(fields={"total": {"sum": "n"}, "mean": {"mean": "n"}})
        found = emitted(reduce, [{"n": n} for n in [0.1] * 10])
        assert found == [("output", {"total": 1.0, "mean": 0.1})]

    @over_seeds
    def test_every_n_payloads_and_the_rest_on_drain(self, routilux_seed: int) -> None:
        reduce = Reduce().set_config(fields={"total": {"sum": "n"}}, every=2)
        found = emitted(reduce, [{"n": n} for n in range(5)], seed=routilux_seed)
        assert [data["total"] for _, data in found] == [1, 5, 4]

    def test_many_more_payloads_than_a_slot_holds(self) -> None:
        flow = Flow("many")
        flow.add_routine(Split().set_config(name="n"), "split")
        flow.add_routine(Reduce().set_config(key="n % 7", fields={"count": {"count": "True"}}), "reduce")
        flow.connect("split", "output", "reduce", "input")
        with Runtime(thread_pool_size=2) as runtime:
            state = runtime.exec(flow, entry_params={"items": list(range(5_000))})
            assert state.wait(60)
            assert sum(output.data["count"] for output in state.outputs) == 5_000

    def test_sums_are_saved(self, tmp_path: Path) -> None:
        def make() -> Reduce:
            return Reduce().set_config(fields={"total": {"sum": "n"}})

        numbers = [{"n": n} for n in range(10)]
        found = saved_in_the_middle(make, numbers, numbers, tmp_path / "state")
        assert sum(data["total"] for event, data in found) == 90


class TestValidate:
    @pytest.mark.parametrize(
        "reference",
        ["https://example.org/x", "#/nope", "other.json", "https://json-schema.org/draft/2020-12/schema"],
    )
    def test_a_reference_to_nothing_in_the_schema_is_refused_at_once(self, reference: str) -> None:
        routine = Validate()
        with pytest.raises(ConfigurationError, match="nothing is fetched"):
            routine.set_config(schema={"properties": {"a": {"$ref": reference}}})
        assert dict(routine.config) == {}

    @pytest.mark.parametrize(
        "schema",
        [
            {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}},
            {"$defs": {"n": {"$anchor": "whole", "type": "integer"}}, "properties": {"a": {"$ref": "#whole"}}},
            {"$id": "https://example.org/a", "$defs": {"n": {"type": "integer"}},
             "properties": {"a": {"$ref": "https://example.org/a#/$defs/n"}}},
            {"$defs": {"n": {"$id": "https://example.org/n", "type": "integer"}},
             "properties": {"a": {"$ref": "https://example.org/n"}}},
        ],
    )  # fmt: skip
    def test_references_within_the_schema_are_followed(self, schema: Any) -> None:
        found = emitted(Validate().set_config(schema=schema), [{"a": 1}, {"a": "x"}])
        assert [event for event, _ in found] == ["valid", "invalid"]

    def test_what_is_nested_without_end_or_is_no_text_is_invalid(self) -> None:
        deep: dict[str, Any] = {}
        for _ in range(2_000):
            deep = {"a": deep}
        tree = Validate().set_config(schema={"properties": {"a": {"$ref": "#"}}})
        endless = Validate().set_config(schema={"$ref": "#"})
        text = Validate().set_config(schema={"properties": {"a": {"pattern": "x"}}})
        for routine, payload, reason in (
            (tree, deep, "nested too deep"),
            (endless, {"a": 1}, "refers to itself"),
            (text, {"a": "\ud800"}, "half of a surrogate pair"),
        ):
            [(event, data)] = emitted(routine, [payload])
            assert (event, reason in data["errors"][0]) == ("invalid", True)

    @pytest.mark.parametrize(
        ("payload", "errors"),
        [
            ({"date": "2012-01-01", "rain": 1.5}, None),
            ({"rain": -1}, ["$: 'date' is a required property", "$.rain: -1 is less than the minimum of 0"]),
            ({"date": "x"}, ["$.date: 'x' does not match '^[0-9-]+$'"]),
        ],
    )
    def test_by_schema(self, payload: Any, errors: list[str] | None) -> None:
        expected = (
            ("valid", payload) if errors is None else ("invalid", {"errors": errors, "payload": payload})
        )
        assert emitted(Validate().set_config(schema=SCHEMA), [payload]) == [expected]

    @pytest.mark.parametrize(
        ("rest", "payload", "errors"),
        [
            (False, {"id": 1, "x_a": "t"}, []),
            (False, {"x_a": 1}, ["$.x_a: 1 is not of type 'string'"]),
            (False, {"y": 1, "id": 1}, ["$: additional properties are not allowed: 'y'"]),
            ({"type": "null"}, {"y": 1, "z": None}, ["$.y: 1 is not of type 'null'"]),
        ],
    )
    def test_by_patterns_of_keys(self, rest: Any, payload: Any, errors: list[str]) -> None:
        schema = {
            "properties": {"id": {}},
            "patternProperties": {"^x_(a+)+$": {"type": "string"}},
            "additionalProperties": rest,
        }
        [(event, data)] = emitted(Validate().set_config(schema=schema), [payload])
        assert data.get("errors", []) == errors
        assert event == ("invalid" if errors else "valid")

    def test_hostile_text_takes_linear_time(self) -> None:
        schema = {"properties": {"text": {"pattern": "^(a+)+$"}}, "patternProperties": {"^(b+)+$": {}}}
        payload = {"text": "a" * 50_000 + "!", "b" * 50_000 + "!": 1}
        assert [event for event, _ in emitted(Validate().set_config(schema=schema), [payload])] == ["invalid"]

    def test_by_type(self) -> None:
        @dataclass
        class Order:
            number: int

        found = emitted(Validate().set_config(type=Order), [{"number": 1}, {"number": "one"}])
        assert [event for event, _ in found] == ["valid", "invalid"]
        assert "number" in found[1][1]["errors"][0]

    def test_a_reference_that_only_a_payload_leads_to_is_not_fetched(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        flow = Flow("remote")
        schema = {"$ref": "http://127.0.0.1:9/schema", "$defs": {"n": {"$id": "https://example.org/n"}}}
        flow.add_routine(Validate().set_config(schema=schema), "check")
        state = routilux_sim.exec(flow, entry_params={"n": 1})
        assert state.wait()
        assert (state.status, "Unresolvable" in repr(state.error)) == ("failed", True)


class TestSort:
    @over_seeds
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("limit", [None, 5])
    def test_order_is_that_of_sorted(self, descending: bool, limit: int | None, routilux_seed: int) -> None:
        random = Random(routilux_seed)
        payloads = [{"n": random.randrange(9), "at": at} for at in range(60)]
        found = emitted(
            Sort().set_config(by="n", descending=descending, limit=limit), payloads, seed=routilux_seed
        )
        expected = sorted(payloads, key=lambda payload: payload["n"], reverse=descending)[:limit]
        assert [data for _, data in found] == expected

    def test_what_is_too_much_or_of_another_kind_is_told(self) -> None:
        found = emitted(Sort().set_config(by="n", max_items=2), [{"n": n} for n in (2, "x", 1, 3)])
        assert [data["n"] for data in only("output", found)] == [1, 2]
        assert [data["payload"]["n"] for data in only("error", found)] == ["x", 3]

    def test_what_is_held_is_saved(self, tmp_path: Path) -> None:
        def make() -> Sort:
            return Sort().set_config(by="n")

        found = saved_in_the_middle(make, [{"n": 3}, {"n": 1}], [{"n": 2}, {"n": 0}], tmp_path / "state")
        assert [data["n"] for _, data in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Map, {"fields": {"a": "b c"}}),
        (Filter, {"when": 1}),
        (Reduce, {"fields": {}}),
        (Reduce, {"fields": {"a": {"product": "n"}}}),
        (Reduce, {"fields": {"a": {"sum": "n", "min": "n"}}}),
        (Reduce, {"fields": {"a": {"sum": "n n"}}}),
        (Validate, {"schema": {"type": "objekt"}}),
        (Validate, {"schema": {}, "type": int}),
        (Validate, {"schema": {"properties": {"a": {"pattern": "(?=a)"}}}}),
        (Validate, {"schema": {"patternProperties": {"(": {}}}}),
        (Validate, {"schema": {"unevaluatedProperties": False}}),
        (Flatten, {"depth": 0}),
        (Pick, {"keys": []}),
        (Sort, {"by": "n", "limit": 0}),
    ],
)
def test_config_that_cannot_work_is_refused(kind: type[Routine], config: dict[str, Any]) -> None:
    routine = kind()
    with pytest.raises(ConfigurationError):
        routine.set_config(**config)
    assert dict(routine.config) == {}


@pytest.mark.parametrize("kind", [Filter, Reduce, Sort, Pick])
def test_a_routine_without_the_config_that_it_needs_says_so(kind: type[Routine]) -> None:
    flow = Flow("unset")
    flow.add_routine(kind(), "it")
    assert "config" in str(failure_of(flow))


def failure_of(flow: Flow) -> BaseException | None:
    with simulated(0) as runtime:
        try:
            state = runtime.exec(flow, entry_params={"n": 1})
        except ConfigurationError as error:
            return error
        assert state.wait()
        return state.error
