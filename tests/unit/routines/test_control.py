"""The built-in routines for control flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routilux import ConfigurationError, Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.routines import (
    BUILT_IN,
    Approve,
    Batch,
    Branch,
    Debounce,
    Dedupe,
    Delay,
    Loop,
    Merge,
    Split,
    Throttle,
)
from routilux.routines.control import MOST_QUEUED
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime
from tests.unit.routines.running import emitted, emitted_at, only, over_seeds, saved_in_the_middle, timed

ROUTES = [{"name": "big", "when": "n > 10"}, {"name": "even", "when": "n % 2 == 0"}]


class TestBranch:
    @pytest.mark.parametrize(
        ("mode", "n", "events"),
        [
            ("first", 12, ["big"]),
            ("first", 4, ["even"]),
            ("first", 3, ["other"]),
            ("all", 12, ["big", "even"]),
            ("all", 11, ["big"]),
            ("all", 3, ["other"]),
        ],
    )
    @over_seeds
    def test_payloads_go_where_conditions_hold(
        self, mode: str, n: int, events: list[str], routilux_seed: int
    ) -> None:
        branch = Branch().set_config(routes=ROUTES, default="other", mode=mode)
        found = emitted(branch, [{"n": n}], seed=routilux_seed)
        assert sorted(found) == sorted((event, {"n": n}) for event in events)

    def test_a_condition_that_cannot_be_read_is_an_error(self) -> None:
        [(event, data)] = emitted(Branch().set_config(routes=ROUTES), [{"n": "text"}])
        assert (event, data["payload"]) == ("error", {"n": "text"})
        assert "n > 10" in data["reason"]

    def test_events_are_declared_by_the_config(self) -> None:
        assert list(Branch().set_config(routes=ROUTES, default="other").events) == [
            "error", "default", "big", "even", "other",
        ]  # fmt: skip


class TestMerge:
    @over_seeds
    def test_all_inputs_by_key(self, routilux_seed: int) -> None:
        merge = Merge().set_config(inputs=["a", "b"], by="key", key="id")
        posts = [(0.0, slot, {"id": n, slot: n}) for slot in "ab" for n in (2, 1)]
        found = emitted_at(merge, posts, seed=routilux_seed)
        assert sorted(found, key=str) == [
            ("output", {"a": {"id": n, "a": n}, "b": {"id": n, "b": n}}) for n in (1, 2)
        ]

    def test_keys_that_look_alike_are_different_keys(self) -> None:
        keys: list[Any] = [1, 1.0, True, "1", "true", None, [1]]
        merge = Merge().set_config(inputs=["a", "b"], by="key", key="id")
        posts = [(0.0, "a", {"id": key}) for key in keys] + [
            (1.0, "b", {"id": key}) for key in reversed(keys)
        ]
        found = [data for _, data in emitted_at(merge, posts)]
        assert [(repr(data["a"]["id"]), repr(data["b"]["id"])) for data in found] == [
            (repr(key), repr(key)) for key in reversed(keys)
        ]

    @over_seeds
    def test_two_of_three_flat_then_the_late_one_is_told(self, routilux_seed: int) -> None:
        merge = Merge().set_config(inputs=["a", "b", "c"], need=2, shape="flat", timeout=5.0)
        posts = [(0.0, "c", {"c": 1}), (1.0, "a", {"a": 2}), (2.0, "b", {"b": 3})]
        assert timed(merge, posts, seed=routilux_seed) == [
            (1.0, "output", {"a": 2, "c": 1}),
            (
                7.0,
                "incomplete",
                {"reason": "nothing came within 5.0 s", "missing": ["a", "c"], "payload": {"b": 3}},
            ),
        ]

    @over_seeds
    def test_any_input_passes(self, routilux_seed: int) -> None:
        merge = Merge().set_config(inputs=["a", "b"], need="any", shape="flat")
        found = emitted_at(merge, [(0.0, "a", {"n": 1}), (1.0, "b", {"n": 2})], seed=routilux_seed)
        assert found == [("output", {"n": 1}), ("output", {"n": 2})]

    @over_seeds
    def test_by_job_only_what_belongs_together(self, routilux_sim: SimulatedRuntime) -> None:
        class Fork(Routine):
            def __init__(self) -> None:
                super().__init__()
                self.add_slot("input")
                self.add_event("left", ["n"])
                self.add_event("right", ["n"])
                self.set_activation_policy(immediate_policy())

            def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
                for payload in slot_data["input"]:
                    self.emit("left", **payload)
                    self.emit("right", **payload)

        flow = Flow("diamond")
        flow.add_routine(Fork(), "fork")
        flow.add_routine(Delay().set_config(seconds=1), "slow")
        flow.add_routine(Merge().set_config(inputs=["a", "b"], by="job"), "join")
        flow.connect("fork", "left", "slow", "input")
        flow.connect("slow", "output", "join", "a")
        flow.connect("fork", "right", "join", "b")
        routilux_sim.exec(flow)
        jobs = [routilux_sim.post(flow, "fork", "input", {"n": n}).job_context for n in range(3)]
        assert routilux_sim.wait_until_all_jobs_finished()
        found = [[output.data for output in job.outputs] for job in jobs]
        assert found == [[{"a": {"n": n}, "b": {"n": n}}] for n in range(3)]

    @over_seeds
    def test_what_is_incomplete_at_the_drain_is_told(self, routilux_seed: int) -> None:
        merge = Merge().set_config(inputs=["a", "b"], by="key", key="id")
        found = emitted_at(merge, [(0.0, "a", {"id": 1}), (0.0, "a", {"id": 2})], seed=routilux_seed)
        assert [(event, data["missing"]) for event, data in found] == [("incomplete", ["b"])] * 2

    @over_seeds
    def test_a_payload_without_the_key_is_told_at_once(self, routilux_seed: int) -> None:
        merge = Merge().set_config(inputs=["a", "b"], by="key", key="id", timeout=60)
        posts = [
            (0.0, "a", {"id": 1}),
            (1.0, "a", {"x": 1}),
            (2.0, "b", {"id": [object]}),
            (3.0, "b", {"id": 1}),
        ]
        found = timed(merge, posts, seed=routilux_seed)
        assert [(time, event) for time, event, _ in found] == [
            (1.0, "error"),
            (2.0, "error"),
            (3.0, "output"),
        ]
        assert found[0][2]["payload"] == {"x": 1}
        assert "no value named 'id'" in found[0][2]["reason"]
        assert "plain data" in found[1][2]["reason"]


class TestLoop:
    @over_seeds
    def test_rounds_until_the_condition_holds_or_no_more(self, routilux_sim: SimulatedRuntime) -> None:
        flow = Flow("looping")
        flow.add_routine(Loop().set_config(until="n >= limit", max=5), "loop")
        flow.add_routine(BUILT_IN["map"]().set_config(fields={"n": "n + 1"}), "step")
        flow.connect("loop", "again", "step", "input")
        flow.connect("step", "output", "loop", "input")
        for limit, expected in [
            (3, ("done", {"n": 3, "limit": 3, "round": 3})),
            (99, ("exhausted", {"n": 5, "limit": 99, "round": 5})),
        ]:
            state = routilux_sim.exec(flow, entry="loop", entry_params={"n": 0, "limit": limit})
            assert state.wait()
            assert [(output.event, output.data) for output in state.outputs] == [expected]

    def test_a_counter_that_is_no_number_is_an_error(self) -> None:
        [(event, data)] = emitted(Loop(), [{"round": "x"}])
        assert (event, "round" in data["reason"]) == ("error", True)


class TestSplit:
    @pytest.mark.parametrize(
        ("config", "payload", "expected"),
        [
            (
                {"keep": ["id"]},
                {"id": 7, "items": ["a", "b"]},
                [
                    ("output", {"id": 7, "index": 0, "count": 2, "item": "a"}),
                    ("output", {"id": 7, "index": 1, "count": 2, "item": "b"}),
                ],
            ),
            (
                {"items": "rows", "spread": True},
                {"rows": [{"x": 1}]},
                [("output", {"index": 0, "count": 1, "x": 1})],
            ),
            ({}, {"items": []}, [("empty", {"items": []})]),
            (
                {},
                {"items": "text"},
                [("error", {"reason": "'items' is str, not a list", "payload": {"items": "text"}})],
            ),
        ],
    )
    def test_items_one_by_one(self, config: Any, payload: Any, expected: Any) -> None:
        assert emitted(Split().set_config(**config), [payload]) == expected

    def test_only_dicts_can_be_spread(self) -> None:
        assert [event for event, _ in emitted(Split().set_config(spread=True), [{"items": [1]}])] == ["error"]


class TestBatch:
    @over_seeds
    def test_full_batches_and_the_rest_at_the_drain(self, routilux_seed: int) -> None:
        found = emitted(Batch().set_config(size=2), [{"n": n} for n in range(5)], seed=routilux_seed)
        assert [data["count"] for _, data in found] == [2, 2, 1]
        assert [item["n"] for _, data in found for item in data["items"]] == [0, 1, 2, 3, 4]

    @over_seeds
    def test_an_old_batch_goes_before_it_is_full(self, routilux_seed: int) -> None:
        posts = [(0.0, "input", {"n": 0}), (2.0, "input", {"n": 1}), (4.0, "input", {"n": 2})]
        found = timed(Batch().set_config(size=10, age=3.0), posts, seed=routilux_seed)
        assert [(time, data["count"]) for time, _, data in found] == [(3.0, 2), (7.0, 1)]


class TestTime:
    @over_seeds
    def test_delay_counts_from_the_arrival_of_each(self, routilux_seed: int) -> None:
        posts = [(0.0, "input", {"n": 0}), (1.0, "input", {"n": 1})]
        found = timed(Delay().set_config(seconds=5), posts, seed=routilux_seed)
        assert found == [(5.0, "output", {"n": 0}), (6.0, "output", {"n": 1})]

    @over_seeds
    def test_debounce_hands_on_the_last_of_a_burst_of_each_key(self, routilux_seed: int) -> None:
        posts = [
            (0.0, "input", {"k": "a", "n": 0}),
            (0.5, "input", {"k": "b", "n": 1}),
            (1.0, "input", {"k": "a", "n": 2}),
            (9.0, "input", {"k": "a", "n": 3}),
        ]
        assert timed(Debounce().set_config(seconds=2.0, key="k"), posts, seed=routilux_seed) == [
            (1.0, "superseded", {"k": "a", "n": 0}),
            (2.5, "output", {"k": "b", "n": 1}),
            (3.0, "output", {"k": "a", "n": 2}),
            (11.0, "output", {"k": "a", "n": 3}),
        ]

    def test_debounce_refuses_a_payload_without_the_key(self) -> None:
        assert [event for event, _ in emitted(Debounce().set_config(seconds=1, key="k"), [{"n": 1}])] == [
            "error"
        ]

    @over_seeds
    def test_throttle_spaces_what_is_too_much(self, routilux_seed: int) -> None:
        posts = [(0.0, "input", {"n": n}) for n in range(4)]
        found = timed(Throttle().set_config(items=2, seconds=1.0), posts, seed=routilux_seed)
        assert [(time, data["n"]) for time, _, data in found] == [(0.0, 0), (0.5, 1), (1.0, 2), (1.5, 3)]

    @over_seeds
    def test_throttle_can_drop_what_is_too_much(self, routilux_seed: int) -> None:
        posts = [(0.0, "input", {"n": 0}), (0.4, "input", {"n": 1}), (1.0, "input", {"n": 2})]
        found = timed(Throttle().set_config(seconds=1.0, excess="drop"), posts, seed=routilux_seed)
        assert [(event, data["n"]) for _, event, data in found] == [
            ("output", 0),
            ("dropped", 1),
            ("output", 2),
        ]


class TestDedupe:
    @over_seeds
    def test_the_first_of_each_key_passes(self, routilux_seed: int) -> None:
        found = emitted(Dedupe().set_config(key="n % 3"), [{"n": n} for n in range(6)], seed=routilux_seed)
        assert sorted(data["n"] for data in only("output", found)) == [0, 1, 2]
        assert sorted(data["n"] for data in only("duplicate", found)) == [3, 4, 5]

    def test_whole_payloads_are_compared_without_regard_to_the_order_of_keys(self) -> None:
        found = emitted(Dedupe(), [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2.5}])
        assert [event for event, _ in found] == ["output", "duplicate", "output"]

    def test_at_least_the_latest_keys_are_remembered_and_old_ones_forgotten(self) -> None:
        payloads = [{"n": n} for n in [*range(200), 151, 0]]
        found = emitted(Dedupe().set_config(remember=50), payloads)
        assert [event for event, _ in found][-2:] == ["duplicate", "output"]

    def test_a_key_that_is_missing_is_an_error(self) -> None:
        assert [event for event, _ in emitted(Dedupe().set_config(key="id"), [{}])] == ["error"]

    def test_what_was_seen_is_saved(self, tmp_path: Path) -> None:
        numbers = [{"n": n} for n in range(30)]
        found = saved_in_the_middle(Dedupe, numbers, [{"n": 3}, {"n": 29}, {"n": 30}], tmp_path / "state")
        assert [event for event, _ in found[-3:]] == ["duplicate", "duplicate", "output"]


class TestApprove:
    @over_seeds
    def test_decisions_find_their_payload(self, routilux_seed: int) -> None:
        posts = [
            (0.0, "input", {"id": 1}),
            (0.0, "input", {"id": 2}),
            (5.0, "decision", {"key": 2, "approved": True, "by": "eve"}),
            (6.0, "decision", {"key": 1, "approved": False}),
            (7.0, "decision", {"key": 1, "approved": True}),
        ]
        assert timed(Approve().set_config(key="id"), posts, seed=routilux_seed) == [
            (5.0, "approved", {"id": 2, "decision": {"key": 2, "approved": True, "by": "eve"}}),
            (6.0, "rejected", {"id": 1, "decision": {"key": 1, "approved": False}}),
            (
                7.0,
                "unmatched",
                {"reason": "nothing with that key waits", "payload": {"key": 1, "approved": True}},
            ),
        ]

    @over_seeds
    def test_what_no_decision_can_name_and_a_decision_that_says_neither_are_told_at_once(
        self, routilux_seed: int
    ) -> None:
        posts = [
            (0.0, "input", {"id": 1}),
            (1.0, "input", {"x": 1}),
            (2.0, "decision", {"key": 1}),
            (3.0, "decision", {"key": 1, "approved": "yes"}),
            (4.0, "decision", {"key": 1, "approved": True}),
        ]
        found = timed(Approve().set_config(key="id"), posts, seed=routilux_seed)
        assert [(time, event) for time, event, _ in found] == [
            (1.0, "error"),
            (2.0, "error"),
            (3.0, "error"),
            (4.0, "approved"),
        ]
        assert [data["payload"] for _, _, data in found[:3]] == [posts[1][2], posts[2][2], posts[3][2]]
        assert "no value named 'id'" in found[0][2]["reason"]
        assert "true or false" in found[1][2]["reason"]

    @over_seeds
    def test_without_a_key_the_oldest_is_decided_and_the_rest_expires(self, routilux_seed: int) -> None:
        posts = [(0.0, "input", {"n": 0}), (1.0, "input", {"n": 1}), (2.0, "decision", {"approved": True})]
        found = timed(Approve().set_config(timeout=10.0), posts, seed=routilux_seed)
        assert [(time, event, data["n"]) for time, event, data in found] == [
            (2.0, "approved", 0),
            (11.0, "expired", 1),
        ]

    def test_what_waits_is_saved(self, tmp_path: Path) -> None:
        def make() -> Approve:
            return Approve().set_config(key="id", timeout=60.0)

        found = saved_in_the_middle(make, [{"id": 1}], [{"id": 2}], tmp_path / "state")
        assert [(event, data["id"]) for event, data in found] == [("expired", 1), ("expired", 2)]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Branch, {"routes": [{"name": "a"}]}),
        (Branch, {"routes": [{"name": "a", "when": "import os"}]}),
        (Branch, {"routes": [{"name": "error", "when": "True"}]}),
        (Branch, {"mode": "some"}),
        (Merge, {"inputs": []}),
        (Merge, {"inputs": ["a"], "by": "key"}),
        (Merge, {"inputs": ["a"], "key": "id"}),
        (Merge, {"inputs": ["a", "b"], "need": 3}),
        (Loop, {"max": 0}),
        (Split, {"items": "items["}),
        (Batch, {"size": 0}),
        (Batch, {"size": 100_000}),
        (Delay, {"seconds": -1}),
        (Delay, {"second": 1}),
        (Throttle, {"items": 0}),
        (Dedupe, {"key": "lambda: 1"}),
        (Approve, {"timeout": "soon"}),
    ],
)
def test_config_that_cannot_work_is_refused_and_changes_nothing(
    kind: type[Routine], config: dict[str, Any]
) -> None:
    routine = kind()
    with pytest.raises(ConfigurationError):
        routine.set_config(**config)
    assert dict(routine.config) == {}


def test_a_refused_change_leaves_what_was_set() -> None:
    merge = Merge().set_config(inputs=["a", "b"])
    for change in ({"need": 3}, {"inputs": ["a"]}, {"inputs": ["a", "b", "b"]}):
        with pytest.raises(ConfigurationError):
            merge.set_config(**change)
    assert (merge.settings.need, merge.settings.inputs, list(merge.slots)) == ("all", ["a", "b"], ["a", "b"])


def test_a_policy_that_the_user_has_set_stays() -> None:
    policy = immediate_policy()
    batch = Batch().set_activation_policy(policy)
    assert batch.set_config(size=7).activation_policy is policy


def test_the_policy_follows_the_config_and_equal_configs_give_equal_policies() -> None:
    first, second = Batch().set_config(size=7, age=2), Batch().set_config(size=7, age=2)
    assert first.activation_policy == second.activation_policy
    assert first.activation_policy != Batch().activation_policy


@pytest.mark.parametrize("strategy", ["sequential", "concurrent"])
@pytest.mark.parametrize("with_store", [False, True])
def test_merge_by_order_takes_branches_that_are_longer_than_a_slot_one_after_the_other(
    strategy: str, with_store: bool
) -> None:
    class Start(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.add_event("go")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            self.emit("go")

    class Rows(Start):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            for n in range(2 * MOST_QUEUED):
                self.emit("go", n=n)

    flow = Flow("two_files", execution_strategy=strategy)
    flow.add_routine(Start(), "start")
    flow.add_routine(Merge().set_config(inputs=["a", "b"]), "merge")
    for name in ("a", "b"):
        flow.add_routine(Rows(), name)
        flow.connect("start", "go", name, "input")
        flow.connect(name, "go", "merge", name)
    with Runtime(thread_pool_size=1, store=MemoryStore() if with_store else None) as runtime:
        state = runtime.exec(flow, entry_params={})
        assert state.wait(60.0)
        assert [output.data for output in state.outputs] == [
            {"a": {"n": n}, "b": {"n": n}} for n in range(2 * MOST_QUEUED)
        ]
