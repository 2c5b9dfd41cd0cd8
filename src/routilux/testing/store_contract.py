"""What every store has to do, as tests.

::

    import pytest

    pytest.register_assert_rewrite("routilux.testing.store_contract")  # for readable failures

    from routilux.testing.store_contract import StoreContract

    class TestMyStore(StoreContract):
        def open_store(self):
            return MyStore()

Needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import pytest

from routilux.errors import SerializationError, StoreError
from routilux.ports import Store

SNAPSHOT: dict[str, Any] = {
    "kind": "worker",
    "flow_id": "orders",
    "next_number": 17,
    "empty": {"text": "", "list": [], "object": {}, "nothing": None},
    "numbers": [0, -1, 2**63, 2**200, 0.1, -0.0, 1e300, True, False, Decimal("1.10"), 1 + 2j],
    "text": "naïve “text” 文字 🎉 \x00 \u2028 \\ \" '",
    "times": [
        datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=1))),
        timedelta(days=-1, microseconds=1),
    ],
    "others": [UUID(int=7), b"\x00\xff", ("a", ("b",)), {1, 2}, frozenset({"x"}), {1: "one", (2, 3): "two"}],
    "mailboxes": {"parse": {"items": [{"number": n, "data": {"n": n}} for n in range(50)]}},
}

ODD_IDS = [
    "a", "A", "", " ", "0", "NULL", "ünïcode 文字 🎉", "line\nbreak\ttab", "x" * 1_000,
    "../../etc/passwd", "a/b\\c:d*?", "%s {} $1", "'; DROP TABLE workers; --",
]  # fmt: skip


class StoreContract:
    """Subclass it and say how your store is opened: empty, and independent of the others."""

    def open_store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = self.open_store()
        yield store
        store.close()

    # -- one snapshot --------------------------------------------------------------------------------------

    def test_an_unknown_worker_has_no_snapshot(self, store: Store) -> None:
        assert store.get("nobody") is None
        assert store.worker_ids() == []

    def test_a_snapshot_comes_back_as_it_was(self, store: Store) -> None:
        store.put("w", SNAPSHOT)
        assert repr(store.get("w")) == repr(SNAPSHOT)

    def test_it_can_be_read_again_and_again(self, store: Store) -> None:
        store.put("w", SNAPSHOT)
        assert store.get("w") == store.get("w") == SNAPSHOT

    def test_the_last_one_wins(self, store: Store) -> None:
        store.put("w", {"version": 1, "only_in_the_first": True})
        store.put("w", {"version": 2})
        assert store.get("w") == {"version": 2}
        assert store.worker_ids() == ["w"]

    def test_a_large_one(self, store: Store) -> None:
        large = {"items": [{"number": n, "data": {"text": "x" * 100}} for n in range(20_000)]}
        store.put("w", large)
        assert store.get("w") == large

    def test_what_is_changed_after_put_changes_nothing_in_the_store(self, store: Store) -> None:
        snapshot: dict[str, Any] = {"shared_data": {"list": [1]}}
        store.put("w", snapshot)
        snapshot["shared_data"]["list"].append(2)
        snapshot["new"] = True
        assert store.get("w") == {"shared_data": {"list": [1]}}

    def test_what_is_changed_after_get_changes_nothing_in_the_store(self, store: Store) -> None:
        store.put("w", {"shared_data": {"list": [1]}})
        got = store.get("w")
        assert got is not None
        got["shared_data"]["list"].append(2)
        assert store.get("w") == {"shared_data": {"list": [1]}}

    def test_a_refused_snapshot_leaves_the_old_one(self, store: Store) -> None:
        store.put("w", {"version": 1})
        with pytest.raises(SerializationError) as refused:
            store.put("w", {"version": 2, "shared_data": {"client": object()}})
        assert refused.value.path == "$.shared_data.client"
        assert store.get("w") == {"version": 1}
        with pytest.raises(SerializationError):
            store.put("new", {"client": object()})
        assert store.worker_ids() == ["w"]

    # -- many workers --------------------------------------------------------------------------------------

    def test_workers_do_not_touch_each_other(self, store: Store) -> None:
        store.put("a", {"of": "a"})
        store.put("b", {"of": "b"})
        store.delete("a")
        store.put("c", {"of": "c"})
        assert store.get("a") is None
        assert store.get("b") == {"of": "b"}
        assert sorted(store.worker_ids()) == ["b", "c"]

    def test_every_text_is_an_id(self, store: Store) -> None:
        for worker_id in ODD_IDS:
            store.put(worker_id, {"of": worker_id})
        assert sorted(store.worker_ids()) == sorted(ODD_IDS)
        assert [store.get(worker_id) for worker_id in ODD_IDS] == [{"of": worker_id} for worker_id in ODD_IDS]
        for worker_id in ODD_IDS:
            store.delete(worker_id)
        assert store.worker_ids() == []

    def test_the_list_of_workers_is_a_copy(self, store: Store) -> None:
        store.put("a", {})
        store.worker_ids().clear()
        assert store.worker_ids() == ["a"]

    def test_deleting_is_final_and_can_be_repeated(self, store: Store) -> None:
        store.put("w", SNAPSHOT)
        store.delete("w")
        store.delete("w")
        store.delete("nobody")
        assert store.get("w") is None
        store.put("w", {"again": True})
        assert store.get("w") == {"again": True}

    @pytest.mark.parametrize("seed", range(20))
    def test_it_behaves_like_a_dict(self, store: Store, seed: int) -> None:
        random = Random(seed)
        model: dict[str, Any] = {}
        for number in range(100):
            worker_id = random.choice("abcd")
            if random.random() < 0.3:
                model.pop(worker_id, None)
                store.delete(worker_id)
            else:
                model[worker_id] = {"number": number}
                store.put(worker_id, {"number": number})
            assert {known: store.get(known) for known in store.worker_ids()} == model, f"seed {seed}"

    # -- the end -------------------------------------------------------------------------------------------

    def test_stores_are_independent(self, store: Store) -> None:
        store.put("w", {"in": "the first"})
        other = self.open_store()
        assert other.get("w") is None
        other.close()
        assert store.get("w") == {"in": "the first"}

    def test_a_closed_store_says_so(self) -> None:
        store = self.open_store()
        store.put("w", {})
        store.close()
        store.close()
        calls: list[Callable[[], Any]] = [
            lambda: store.put("w", {}),
            lambda: store.get("w"),
            store.worker_ids,
            lambda: store.delete("w"),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()

    # -- threads -------------------------------------------------------------------------------------------

    def test_threads_that_put_different_workers(self, store: Store) -> None:
        def put(thread: int) -> None:
            for number in range(50):
                store.put(f"{thread}-{number}", {"thread": thread, "number": number})

        _at_once([partial(put, thread) for thread in range(4)])
        for thread in range(4):
            for number in range(50):
                assert store.get(f"{thread}-{number}") == {"thread": thread, "number": number}

    def test_a_reader_sees_whole_snapshots_only(self, store: Store) -> None:
        store.put("w", {"values": [-1] * 100})

        def write(thread: int) -> None:
            for number in range(50):
                store.put("w", {"values": [thread * 1_000 + number] * 100})

        def read() -> None:
            for _ in range(100):
                snapshot = store.get("w")
                assert snapshot is not None
                assert len(snapshot["values"]) == 100
                assert len(set(snapshot["values"])) == 1

        _at_once([lambda: write(0), lambda: write(1), read, read])
        last = store.get("w")
        assert last is not None
        assert last["values"][0] in (49, 1_049)


def _at_once(calls: list[Callable[[], None]]) -> None:
    """Run each on a thread of its own; raise what the first of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()
