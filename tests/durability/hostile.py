"""A user who does whatever the calls let users do, in processes that die, on one store.

Values that are odd, objects that are changed after they were handed over, names that are used again, small limits,
other shapes of the flow, gates and policies and observers that raise, refused calls in between, and a second owner.

Rules, which :class:`Books` checks with every transaction
    * No text reaches the store that a store cannot write.
    * An item belongs to jobs and to a worker that are there. It leaves with the activation that says so in the log, as
      a dead letter with the payload that was acknowledged, or because its jobs were cancelled; once.
    * No number of a worker is used twice, and no effect key for different items, whatever became of the worker before.
    * A worker is written by one owner, and an execution of a ``job_id`` takes effect once.

And, when nothing goes wrong any more: every worker opens, what was acknowledged has come to its end, states are what
they were before the restart, and nothing stands still.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any, NamedTuple

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, current
from routilux.activation_policies import (
    WAIT,
    Fire,
    all_slots_ready_policy,
    custom_policy,
    immediate_policy,
)
from routilux.errors import (
    RoutiluxError,
    StoreError,
    StoreFencedError,
    StoreFullError,
    StoreLockedError,
    StoreUnknownError,
)
from routilux.model.context import running
from routilux.ports import Changes, ItemKey, ItemRow, load
from routilux.runtime import runtime as runtime_module
from routilux.runtime.journal import committer
from routilux.store import registry
from routilux.store.claims import Claims
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime, SimulationStuck
from tests.durability.frail import Death

KEY_BYTES = 2_690  # that an index of PostgreSQL takes
LONGEST_LIFE = 60_000  # moments at which another virtual thread could come in
ODD_TEXTS = (
    "", "caf\udce9.txt", "a\0b", "\1\1", "ключ", "😀", "\ud83d", "x" * 300, "é" * 1_500, "x" * 3_000, "a.b", "'; --",
    '"', "~", "1", "true", "__class__",
)  # fmt: skip
ODD_KEYS = (1, True, 1.0, 0, False, -0.0, 2, 2.0, None, "1", (1, 2))


class Broken(AssertionError):
    """A rule does not hold."""


class Books(MemoryStore):
    """The store, which checks what it is told. Processes see it through a :class:`Desk` each."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = load("codec")()
        self.desks: dict[str, Desk] = {}  # who has claimed a worker last
        self.acknowledged: dict[str, Any] = {}  # uid of a post -> its payload, as a user would write it down
        self.refused: set[str] = set()
        self.posted: Counter[str] = Counter()
        self.done: Counter[tuple[str, str]] = Counter()  # routine and uid
        self.effects: dict[str, Any] = {}  # effect key -> the items that it was given for
        self.executions: Counter[str] = Counter()  # by job_id
        self.highest: dict[str, int] = {}  # number of an item, by worker
        self.breaches: list[str] = []

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.breaches.append(what)

    def check(self, changes: Changes) -> None:
        """Before it is applied."""
        for key in _keys(changes):
            length = sum(len(text.encode("utf-8", "surrogatepass")) for text in key)
            self.expect(length <= KEY_BYTES, f"a key of {length:,} bytes reaches the store: {str(key)[:80]}")
        taken = Counter(changes.taken)
        self._check_marks(changes, taken)
        for letter in changes.letters:
            key = ItemKey(letter.worker_id, letter.place, letter.number)
            self.expect(taken[key] == 1, f"{key} becomes a letter, and stays")
            taken[key] -= 1
            self._check_letter(key, letter.data)
        for key, times in taken.items():
            row = self._row(key)
            if times and row is not None:
                gone = [job_id for job_id in json.loads(row.job_ids) if not self._is_over(job_id, changes)]
                self.expect(not gone, f"{key} is taken for no reason, and {gone} go on")
        self._check_items(changes)
        for worker_id in changes.forgotten:
            left = [place for place in self._items if place[0] == worker_id]
            self.expect(not left, f"worker {worker_id} is forgotten with items in {left}")

    def _check_marks(self, changes: Changes, taken: Counter[ItemKey]) -> None:
        for entry in changes.entries:
            mark = self.codec.decode(entry.data, "mark") if entry.kind == "log" else None
            if mark is None:
                continue
            keys = [ItemKey(entry.worker_id, f"{mark['routine']}.{slot}", n) for slot, n, _ in mark["items"]]
            for key in keys:
                self.expect(taken[key] == 1, f"{key} is done, and stays in the store")
                taken[key] -= 1
            uids = [uid for _, _, uid in mark["items"]]
            for uid in uids:
                self.done[mark["routine"], uid] += 1
            known = self.effects.setdefault(mark["key"], keys)
            self.expect(known == keys, f"effect key {mark['key']} for {known} and for {keys}")
            if mark["routine"] == "night":
                self.executions[mark["job_id"]] += 1
                times = self.executions[mark["job_id"]]
                self.expect(times == 1, f"execution {mark['job_id']} took effect {times} times")

    def _check_letter(self, key: ItemKey, data: bytes) -> None:
        row = self._row(key)
        self.expect(row is not None, f"{key} becomes a letter, and was never there")
        if row is not None:
            self.expect(
                row.data == data, f"the letter of {key} is {data[:200]!r}, acknowledged {row.data[:200]!r}"
            )

    def _row(self, key: ItemKey) -> ItemRow | None:
        return self._items.get((key.worker_id, key.place), {}).get(key.number)

    def _is_over(self, job_id: str, changes: Changes) -> bool:
        row = changes.jobs.get(job_id) or self._jobs.get(job_id)
        return row is None or row.status in ("cancelled", "failed")

    def _check_items(self, changes: Changes) -> None:
        for row in changes.items:
            worker = changes.workers.get(row.worker_id) or self._workers.get(row.worker_id)
            self.expect(worker is not None, f"item {row.number} in {row.place} of no worker")
            highest = self.highest.get(row.worker_id, 0)
            self.expect(row.number > highest, f"{row.worker_id} uses number {row.number} after {highest}")
            self.highest[row.worker_id] = max(row.number, highest)
            for job_id in json.loads(row.job_ids):
                there = job_id in changes.jobs or job_id in self._jobs
                self.expect(there, f"item {row.number} belongs to {job_id}, which is not there")
            if row.source == "post":
                uid = self.codec.decode(row.data, "post")["uid"]
                if changes.redriven and uid in self.acknowledged:
                    [job_id] = json.loads(row.job_ids)
                    self.acknowledged[uid] = (*self.acknowledged[uid][:2], job_id)
                if changes.redriven:
                    continue
                if uid.startswith("night"):
                    continue  # see _check_marks
                self.posted[uid] += 1
                self.expect(self.posted[uid] == 1, f"post {uid} is accepted twice")
                self.expect(uid not in self.refused, f"post {uid} was refused, and is accepted")

    def prune(self, now: float, **limits: Any) -> int:
        removed = super().prune(now, **limits)
        for job_id in [job_id for job_id in self.executions if job_id not in self._jobs]:
            del self.executions[job_id]  # its name is free again
        return removed

    def check_whole(self) -> None:
        """Everything that stands in the store belongs to something that is there."""
        counts: Counter[str] = Counter()
        for (worker_id, place), rows in self._items.items():
            self.expect(worker_id in self._workers, f"{place} has items of {worker_id}, which is not there")
            for row in rows.values():
                job_ids = json.loads(row.job_ids)
                counts.update(job_ids)
                for job_id in job_ids:
                    self.expect(job_id in self._jobs, f"item {row.number} of {job_id}, which is not there")
        for job_id in {*counts, *self._counts}:
            stored = self._counts.get(job_id, 0)
            self.expect(counts[job_id] == stored, f"{job_id} has {counts[job_id]} items, counted {stored}")

    def raise_breaches(self) -> None:
        if self.breaches:
            raise Broken("; ".join(self.breaches[:4]))


class Desk:
    """What one process sees of the store. It may die, be refused, and lose a worker to another one."""

    commands = None  # processes come one after the other

    def __init__(self, books: Books, rng: Random) -> None:
        self.books = books
        self.name = "books"
        self.rng = rng
        self.trouble = 0.0
        self.dead = False
        self.moment: Callable[[str], None] = lambda where: None
        self._claims = Claims()
        self._claimed: set[str] = set()
        self._lost: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.books, name)

    def write(self, changes: Changes) -> Any:
        self._alive()
        self.moment("before a write")
        for worker_id in _worker_ids(changes):
            owner = self.books.desks.get(worker_id)
            if owner is not None and owner is not self and (worker_id in self._claimed or not owner.dead):
                raise StoreFencedError(f"worker {worker_id!r} is run by another process", worker_id=worker_id)
        fault = self.rng.choice(("full", "refused", "lost")) if self.rng.random() < self.trouble else ""
        if fault == "full":
            raise StoreFullError("no space left")
        if fault == "refused":
            raise StoreError("the store is busy")
        lost = fault == "lost" and self.rng.random() < 0.5
        if not lost:
            self.books.check(changes)
        answer = frozenset() if lost else self.books.write(changes)
        self.moment("after a write")
        if fault == "lost":
            self._written = not lost and not answer
            raise StoreUnknownError("the connection was lost")
        return answer

    def settle(self) -> bool:
        self._alive()
        return self._written

    def claim(self, worker_id: str) -> None:
        self._alive()
        self._claims.take(worker_id)
        self._claimed.add(worker_id)
        self.books.desks[worker_id] = self

    def give_up(self, worker_id: str) -> None:
        self._claims.give_up(worker_id)
        self._claimed.discard(worker_id)
        if self.books.desks.get(worker_id) is self:
            del self.books.desks[worker_id]

    def close(self) -> None:
        return None

    def _alive(self) -> None:
        if self.dead:
            raise Death


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Opaque:
    """Nothing that can be stored."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Parcel(NamedTuple):
    """A class of the user, which not every version of the program has."""

    what: str


class Sly:
    """A gate, an observer and an output handler that raise now and then."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.tame = False

    def _maybe(self, chance: float = 0.3) -> bool:
        if not self.tame and self.rng.random() < chance:
            raise Unspeakable
        return False

    def holds_item(self, *_: Any) -> bool:
        return self._maybe()

    def holds_activation(self, *_: Any) -> bool:
        return self._maybe()

    def record(self, record: object) -> None:
        self._maybe(0.1)


class Story:
    """One store, and what one seed does to it."""

    def __init__(self, seed: int, tell: Callable[[object], object] = bool) -> None:
        self.seed = seed
        self.rng = Random(f"hostile {seed}")
        self.tell = tell
        self.books = Books()
        self.number = 0  # of the life
        self.uids = 0
        self.wall = 1_577_836_800.0
        self.shape = "whole"
        self.stopped: set[str] = set()
        self.states: dict[str, str] = {}  # what the states of a worker were when its process ended in order

    def run(self) -> None:
        usual = (
            committer.PRUNE_RECORDS,
            committer.KEEP_FINISHED_JOBS,
            committer.PRUNE_ROWS,
            committer.BATCH_RECORDS,
        )
        try:
            for _ in range(self.rng.choice((1, 2, 2, 3))):
                self._live(mortal=True)
            self._live(mortal=False)
            self._live(mortal=False)  # nothing is left to be done
        finally:
            (
                committer.PRUNE_RECORDS, committer.KEEP_FINISHED_JOBS, committer.PRUNE_ROWS, committer.BATCH_RECORDS,
            ) = usual  # fmt: skip

    def _live(self, *, mortal: bool) -> None:
        self.number += 1
        small = self.rng.random() < 0.6
        committer.PRUNE_RECORDS = self.rng.choice((1, 5, 20)) if small else 20_000
        committer.KEEP_FINISHED_JOBS = self.rng.choice((0, 1, 5)) if small else 100_000
        committer.PRUNE_ROWS = self.rng.choice((1, 2, 1_000))
        committer.BATCH_RECORDS = self.rng.choice((1, 2, 512))
        self.tell(f"life {self.number}")
        life = Life(self, mortal)
        try:
            life.live()
        except BaseException:
            if not life.dead:
                life.bury()
                raise
            self.tell(f"it has died {life.how}")
            life.bury()
        self.books.raise_breaches()
        self.wall += life.runtime.now + self.rng.choice((0.0, 1.0, 1_000.0))


class _Runtime(SimulatedRuntime):
    """Its ids are told apart from those of other processes with the same store."""

    def __init__(self, life: str, seed: int, **options: Any) -> None:
        self._named = life
        super().__init__(seed, **options)

    def _create_driver(self) -> Any:
        self._life = self._named
        return super()._create_driver()


class Life:
    """One process."""

    def __init__(self, story: Story, mortal: bool) -> None:
        self.story, self.books, self.mortal = story, story.books, mortal
        registry.register(Parcel, "parcel")
        self.rng = Random(f"life {story.seed} {story.number}")
        self.dead = False
        self.how = ""
        self._moments = 0
        self._dies_at = self.rng.choice((30, 200, 800, 3_000, None)) if mortal else None
        if self._dies_at is not None:
            self._dies_at = self.rng.randrange(self._dies_at)
        self.desk = Desk(self.books, Random(f"desk {story.seed} {story.number}"))
        self.desk.moment = self.moment
        self.sly = Sly(self.rng)
        self.sly.tame = not mortal
        self.runtime = _Runtime(
            f"{story.number}_", story.seed + 1_000_003 * story.number, store=self.desk,
            interruption=self.rng.choice((0.0, 0.1, 0.3)),
        )  # fmt: skip
        self.simulation = self.runtime.simulation
        self.simulation.clock.shown_at_zero = story.wall
        self._interrupt = self.simulation.maybe_interrupt
        self.simulation.maybe_interrupt = self._pass  # type: ignore[method-assign]
        self.workers: dict[str, Any] = {}  # by flow
        self.knows_parcels = True

    # -- death -----------------------------------------------------------------------------------------------

    def moment(self, where: str) -> None:
        if self.dead:
            raise Death
        self._moments += 1
        if self._moments > LONGEST_LIFE:
            raise SimulationStuck(f"seed {self.story.seed}: it does not come to rest")
        if self._dies_at is not None and self._moments > self._dies_at:
            self.dead = self.desk.dead = True
            self.how = where
            self.simulation.fault = Death()  # type: ignore[assignment]
            raise Death

    def _pass(self) -> None:
        if not self.simulation._closed:
            self.moment("in between")
            self._interrupt()

    def bury(self) -> None:
        self.dead = self.desk.dead = True
        self.simulation.fault = None
        self.simulation.maybe_interrupt = lambda: None  # type: ignore[method-assign]
        running.set(None)
        self.simulation.close(None)
        runtime_module._open_runtimes.discard(self.runtime)

    # -- a life ----------------------------------------------------------------------------------------------

    def live(self) -> None:
        if self.mortal and self.rng.random() < 0.2:
            self.knows_parcels = False
            del registry.by_tag["parcel"], registry.by_class[Parcel]
        if self.mortal:
            self.desk.trouble = self.rng.choice((0.0, 0.0, 0.05))
            self.runtime.add_observer(self.sly)
        if not self.open():
            return
        for _ in range(self.rng.randrange(12) if self.mortal else 3):
            self.rng.choice(self.doings if self.mortal else (self.post, self.night))()
            self.check_alive()
            if self.rng.random() < 0.6:
                for _ in range(self.rng.randrange(40)):
                    self.runtime.simulation.step()
        for state in self.workers.values():
            failure = state.control.failure
            self.books.expect(failure is None, f"{state.worker_id} was given up: {failure}")
        if self.mortal and self.rng.random() < 0.4:
            self.desk.trouble = 0.0
            self.end()
        elif self.mortal:
            self._dies_at = 0
            self.moment("at last")
        else:
            self.finish()

    def check_alive(self) -> None:
        if self.dead:
            raise Death

    @property
    def doings(self) -> tuple[Callable[[], object], ...]:
        return (
            self.post, self.post, self.post, self.post, self.post, self.night, self.night, self.refused, self.pause,
            self.resume, self.cancel, self.stop, self.gate, self.redrive, self.meddle, self.lose,
        )  # fmt: skip

    def open(self) -> bool:
        """Everything that is there opens; what is not is started, under the names that were there before."""
        story = self.story
        shape = self.rng.choice(("whole", "whole", "no batch", "no right")) if self.mortal else "whole"
        flows = [self.shop(shape), self.other(), self.nights()]
        recovered = self.insist(
            partial(self.runtime.recover, flows=flows, on_flow_change="adopt", paused=False)
        )
        if recovered.not_reopened and self.desk.trouble:
            trouble, self.desk.trouble = self.desk.trouble, 0.0
            again = self.insist(partial(self.runtime.recover, flows=flows, on_flow_change="adopt"))
            recovered.extend(again)
            recovered.not_reopened = again.not_reopened
            self.desk.trouble = trouble
        if recovered.not_reopened:
            reasons = [left.reason for left in recovered.not_reopened]
            unknown = not self.knows_parcels and all("parcel" in reason for reason in reasons)
            self.books.expect(unknown, f"not reopened: {recovered.not_reopened}")
            self.books.raise_breaches()
            self.runtime.shutdown(wait=False)
            return False
        for state in recovered:
            before = story.states.pop(state.worker_id, None)
            now = self.shown(state)
            same = before in (None, "", now) or not now or shape != "whole" or story.shape != "whole"
            self.books.expect(same, f"states of {state.worker_id} were {before} and are {now}")
            if state.flow_id != "nights":
                self.workers[state.flow_id] = state
        story.states.clear()
        story.shape = shape
        for flow in flows[:2]:
            if flow.flow_id not in self.workers:
                self.workers[flow.flow_id] = self.insist(
                    partial(self.runtime.exec, flow, worker_id=f"the {flow.flow_id}")
                )
        self.flows = {flow.flow_id: flow for flow in flows}
        return True

    def insist(self, call: Callable[[], Any]) -> Any:
        for _ in range(200):
            try:
                result = call()
            except StoreError as error:
                self.check_alive()
                self.story.tell(f"   {type(error).__name__}: {str(error)[:150]}")
                if isinstance(error, StoreLockedError):
                    self.runtime.run(1.0)  # what is stopped is still to be written
                elif not self.desk.trouble:
                    raise Broken(f"{type(error).__name__} without a reason: {error}") from error
                continue
            self.check_alive()
            return result
        raise Broken("the store refuses for ever")

    def shown(self, state: Any) -> str:
        """The states of a worker, as far as this program can read them."""
        if not self.knows_parcels:
            return ""
        mappings = [*sorted(state.routine_states.items()), ("shared", state.shared_data)]
        encode = self.books.codec.encode
        return repr(
            [(name, sorted(encode([*pair], "state") for pair in value.items())) for name, value in mappings]
        )

    # -- flows -----------------------------------------------------------------------------------------------

    def shop(self, shape: str) -> Flow:
        flow = Flow("shop")
        room = self.rng.choice((2, 100))
        take = _routine(self.take, ["in"], ["out", "aside"], conc=self.rng.choice((1, 2)), room=room)
        take.set_error_handler(
            self.rng.choice(
                (
                    ErrorHandler(ErrorStrategy.SKIP),
                    ErrorHandler(ErrorStrategy.CONTINUE),
                    ErrorHandler(ErrorStrategy.STOP),
                    ErrorHandler(
                        ErrorStrategy.RETRY, max_retries=2, retry_delay=1.0, on_exhausted=ErrorStrategy.SKIP
                    ),
                )
            )
        )
        flow.add_routine(take, "take")
        slots: list[Any] = ["left"] if shape == "no right" else ["left", "right"]
        # Items whose partners were of a slot that is gone fill a small one for good.
        room = 3 if self.mortal else 100
        join = _routine(self.mark_only("join"), slots, [], policy=all_slots_ready_policy(by="k"), room=room)
        join.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=5.0))
        flow.add_routine(join, "join")
        flow.connect("take", "out", "join", "left")
        if shape != "no right":
            flow.connect("take", "aside", "join", "right")
        if shape != "no batch":
            batch = _routine(self.mark_only("batch"), ["in"], [], policy=custom_policy(self.policy))
            batch.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=2.0))
            flow.add_routine(batch, "batch")
            flow.connect("take", "out", "batch", "in")
        return flow

    def other(self) -> Flow:
        flow = Flow("other")
        flow.add_routine(_routine(self.mark_only("plain"), ["in"], []), "plain")
        return flow

    def nights(self) -> Flow:
        flow = Flow("nights")
        flow.add_routine(_routine(self.mark_only("night"), ["in"], []), "night")
        return flow

    def policy(self, slots: Any, state: Any) -> Any:
        if not len(slots["in"]):
            return WAIT
        self.sly._maybe(0.05)
        message: Any = {"n": 1}
        if not self.sly.tame and self.rng.random() < 0.1:
            message = Opaque()
        return Fire({"in": self.rng.choice((1, len(slots["in"])))}, message=message)

    def mark_only(self, routine_id: str) -> Callable[..., None]:
        def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
            self.moment("in logic")
            if not self.sly.tame and self.rng.random() < 0.1:
                raise ValueError(self.rng.choice(ODD_TEXTS))
            self.mark(routine_id, state)

        return logic

    def mark(self, routine_id: str, state: Any) -> None:
        activation: Any = running.get()
        state.shared_log.append(
            {
                "routine": routine_id,
                "items": [[item[1], item[0], item[2].get("uid")] for item in activation.batch],
                "key": current().idempotency_key(),
                "job_id": current().job.job_id,
            }
        )

    def take(self, routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        self.moment("in logic")
        [payload] = slot_data["in"]
        self.mark("take", state)
        uid, k = payload["uid"], payload["k"]
        for doing in payload["do"]:
            self.do_oddly(doing, routine, payload, state)
        routine.emit("out", uid=uid, k=k)
        routine.emit("aside", uid=uid, k=k)

    def do_oddly(self, doing: list[Any], routine: Routine, payload: dict[str, Any], state: Any) -> None:
        kind, at = doing
        text, key, context = ODD_TEXTS[at % len(ODD_TEXTS)], ODD_KEYS[at % len(ODD_KEYS)], current()
        if self.sly.tame:
            return
        match kind:
            case "state":
                state.update_routine_state("take", {text: at})
            case "set":
                state.update_routine_state("take", {"draft": at})
                state.set_routine_state("take", {"final": at, text: 1})
            case "keys":
                state.shared_data[key] = at
                state.shared_data[ODD_KEYS[(at + 1) % len(ODD_KEYS)]] = at + 1
            case "delete":
                state.shared_data.pop(key, None)
            case "value":
                state.shared_data["odd"] = _odd_value(at)
            case "in place":
                state.shared_data.setdefault("list", []).append(at)
                if at % 3 == 0:
                    state.shared_data["list"].append(Opaque())
            case "once":
                context.once(text, lambda: _odd_value(at))
            case "data":
                context.job.set_data(text, _odd_value(at))
            case "trace":
                context.job.trace(text or "empty", value=text)
            case "error":
                raise ValueError(f"cannot read {text}")
            case "unspeakable":
                raise Unspeakable
            case "mutate":
                payload["x"] = Opaque()
                payload.pop("k")
                raise ValueError("x")
            case "metadata":
                context.job.metadata["request"] = Opaque() if at % 2 else text
            case "output":
                routine.emit("out", uid=payload["uid"], k=payload["k"], x=_odd_value(at))
            case "opaque":
                routine.emit("out", uid=payload["uid"], k=Opaque())
            case "note":
                state.shared_data[text] = Opaque() if at % 2 else {"t": text}

    # -- what is done from outside -----------------------------------------------------------------------------

    def post(self) -> None:
        self.story.uids += 1
        uid = f"u{self.story.uids}"
        kinds = (
            "state", "set", "keys", "delete", "value", "in place", "once", "data", "trace", "error", "unspeakable",
            "mutate", "metadata", "output", "opaque", "note",
        )  # fmt: skip
        do = [
            [self.rng.choice(kinds), self.rng.randrange(1_000)] for _ in range(self.rng.choice((0, 0, 1, 2)))
        ]
        payload = {"uid": uid, "k": self.rng.randrange(3), "do": do}
        if self.rng.random() < 0.3:
            payload["odd"] = _odd_value(self.rng.randrange(1_000))
        if self.rng.random() < 0.2:
            payload["parcel"] = Parcel("of this version")
        metadata: Any = {"a": 1} if self.rng.random() < 0.3 else None
        flow, place = self.rng.choice((("shop", "take"), ("shop", "take"), ("other", "plain")))
        key = f"key {uid}" if self.rng.random() < 0.4 else None
        for _ in range(self.rng.choice((1, 1, 2)) if key else 1):
            self._post(flow, place, uid, payload, metadata, key)
        if self.rng.random() < 0.5:  # the caller goes on using what it has given away
            payload["uid"] = "another"
            payload["x"] = Opaque()
            if metadata is not None:
                metadata["a"] = Opaque()

    def _post(
        self, flow: str, place: str, uid: str, payload: dict[str, Any], metadata: Any, key: str | None
    ) -> None:
        job_id = self.rng.choice(ODD_TEXTS) if self.rng.random() < 0.1 else None
        self.story.tell(f"post {uid} {payload['do']} job_id={job_id!r:.20} key={key}")
        try:
            posted = self.runtime.post(
                flow, place, "in", payload, metadata=metadata, idempotency_key=key, timeout=5.0,
                job_id=None if key else job_id,
            )  # fmt: skip
        except StoreUnknownError:
            self.check_alive()
        except (RoutiluxError, ValueError, TypeError) as error:
            self.check_alive()
            self.story.tell(f"   {type(error).__name__}: {str(error)[:100]}")
            if key is None:
                self.books.refused.add(uid)
        else:
            self.check_alive()
            self.books.expect(self.books.posted[uid] == 1, f"post {uid} is acknowledged, and is not stored")
            self.books.acknowledged[uid] = (flow, place, posted.job_id)

    def night(self) -> None:
        """Executions under the same few names, by several callers at once."""
        name = f"night {self.rng.randrange(3)}"
        for _ in range(self.rng.choice((0, 1, 2))):
            self.runtime.interrupt_with(partial(self._night, name))
        self._night(name)

    def _night(self, name: str) -> None:
        metadata = {"x": Opaque()} if self.rng.random() < 0.1 else None
        try:
            state = self.runtime.exec(
                self.flows["nights"],
                entry_params={"uid": name},
                entry="night.in",
                job_id=name,
                metadata=metadata,
            )
        except (RoutiluxError, TypeError, ValueError) as error:
            self.check_alive()
            self.story.tell(f"   exec {name}: {type(error).__name__}: {str(error)[:100]}")
        else:
            self.check_alive()
            self.books.expect(state.job is None or state.job.job_id == name, f"{name} is {state.job}")

    def refused(self) -> None:
        """Calls that can only be refused; nothing has changed."""
        runtime, shop = self.runtime, self.flows["shop"]
        calls: tuple[Callable[[], object], ...] = (
            lambda: runtime.post("shop", "nowhere", "in", {}),
            lambda: runtime.post("shop", "take", "in", {"uid": "never", "x": Opaque()}),
            lambda: runtime.post("shop", "take", "in", {"uid": "never"}, metadata={"x": Opaque()}),
            lambda: runtime.exec(shop, worker_id="the other"),
            lambda: runtime.exec(
                self.flows["nights"], entry_params={}, entry="night.in", worker_id="the shop"
            ),
            lambda: runtime.exec(shop, worker_id="another", metadata={"x": Opaque()}),
            lambda: runtime.get_job(object()),  # type: ignore[arg-type]
        )
        call = self.rng.choice(calls)
        try:
            result = call()
        except (RoutiluxError, TypeError, ValueError):
            self.check_alive()
        else:
            self.check_alive()
            self.books.expect(False, f"a call that cannot be meant gave {result!r:.100}")

    def _carefully(self, call: Callable[[], object]) -> None:
        with suppress(RoutiluxError, TypeError, ValueError):
            call()
        self.check_alive()

    def _target(self) -> Any:
        jobs = [job for job in list(self.runtime._engine.book.jobs.values()) if not job.status.finished]
        return self.rng.choice([*jobs, *self.workers.values()])

    def pause(self) -> None:
        self._carefully(partial(self.runtime.pause, self._target(), timeout=1.0))

    def resume(self) -> None:
        self._carefully(partial(self.runtime.resume, self._target()))

    def cancel(self) -> None:
        self._carefully(partial(self.runtime.cancel, self._target()))
        self._start_again()

    def stop(self) -> None:
        """A worker ends for good, and its name is used again at once."""
        state = self.workers[self.rng.choice(("shop", "other"))]
        self.story.tell(f"stop {state.worker_id}")
        self._carefully(partial(self.runtime.stop, state, drain=self.rng.random() < 0.5, timeout=20.0))
        self._start_again()

    def _start_again(self) -> None:
        for flow_id, state in list(self.workers.items()):
            if state.control.stopped and self.mortal:
                self.story.tell(f"start {state.worker_id} again")
                self.workers[flow_id] = self.insist(
                    partial(
                        self.runtime.exec,
                        self.flows[flow_id],
                        worker_id=f"the {flow_id}",
                        on_flow_change="adopt",
                    )
                )

    def gate(self) -> None:
        worker = self.workers["shop"]
        routine_id = self.rng.choice(("take", "join"))
        self._carefully(partial(self.runtime.set_gate, worker, routine_id, self.rng.choice((self.sly, None))))

    def redrive(self) -> None:
        letters = self.insist(self.runtime.dead_letters)
        if letters:
            self._carefully(partial(self.runtime.redrive, self.rng.choice(letters), timeout=1.0))

    def meddle(self) -> None:
        """Change what was given to the user and belongs to the runtime."""
        for job in list(self.runtime._engine.book.jobs.values())[:3]:
            self._carefully(partial(job.metadata.__setitem__, "request", Opaque()))
        state = self.workers["shop"]
        text = self.rng.choice(ODD_TEXTS)
        self._carefully(partial(state.update_routine_state, "take", {text: 1}))
        self._carefully(partial(state.set_routine_state, "take", {"outside": Opaque()}))
        self._carefully(partial(state.shared_data.__setitem__, self.rng.choice(ODD_KEYS), _odd_value(3)))

    def lose(self) -> None:
        """Another process has taken a worker over, and has let it go again; its other workers do not notice."""
        worker = self.workers["other"].control
        if worker.stopped or self.rng.random() < 0.5:
            return
        thief = Desk(self.books, self.rng)
        self.books.desks[worker.worker_id] = thief
        self.story.tell(f"{worker.worker_id} is lost")
        with suppress(RoutiluxError):
            self.runtime.post("other", "plain", "in", {"uid": "lost", "do": []}, timeout=5.0)
        self.check_alive()
        self.books.expect("lost" not in self.books.posted, "a post went into a worker of another process")
        self.runtime.run(2.0)
        self.books.expect(worker.stopped, f"{worker.worker_id} was lost, and goes on")
        del self.books.desks[worker.worker_id]
        self._start_again()

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """In order. What the states are now they are when they are opened again."""
        self.simulation.interrupts.clear()
        self.story.tell("it ends in order")
        self.runtime.shutdown(wait=False)
        self.check_alive()
        for state in self.workers.values():
            if not state.control.for_good and state.control.failure is None:
                self.story.states[state.worker_id] = self.shown(state)

    def finish(self) -> None:
        """Nothing goes wrong any more: everything comes to its end, and nothing stands still."""
        runtime = self.runtime
        runtime.simulation.interrupts.clear()
        runtime.run()
        for _ in range(50):
            jobs = [job for job in self.insist(runtime.list_jobs) if not job.status.finished]
            paused = [target for target in (*jobs, *self.workers.values()) if _is_paused(target)]
            for target in paused:
                runtime.resume(target)
            runtime.run()
            if not paused:
                break
        health = runtime.health()
        self.books.expect(health.status == "ok", f"at the end: {health}")
        left = [job for job in self.insist(runtime.list_jobs) if not job.status.finished]
        self.books.expect(not left, f"left open: {left}")
        self._check_fates()
        self.books.check_whole()
        self.books.raise_breaches()
        self.end()

    def _check_fates(self) -> None:
        """What was acknowledged is done, a letter, cancelled or failed: one of them."""
        books = self.books
        letters = Counter(letter.data.get("uid") for letter in self.insist(self.runtime.dead_letters))
        for uid, (_, routine_id, job_id) in books.acknowledged.items():
            times = books.done[routine_id, uid]
            books.expect(times <= 1, f"{uid} is done {times} times")
            job = books._jobs.get(job_id)
            over = job is None or job.status in ("cancelled", "failed")
            books.expect(times or letters[uid] or over, f"{uid} of {job_id} is lost; its job is {job}")


def _is_paused(target: Any) -> bool:
    return bool(getattr(target, "paused", False)) or getattr(target, "status", None) == "paused"


def _routine(
    logic: Callable[..., None],
    slots: list[str],
    events: list[str],
    *,
    policy: Any = None,
    conc: int = 1,
    room: int = 100,
) -> Routine:
    class Made(Routine):
        def __init__(self) -> None:
            super().__init__()
            for slot in slots:
                self.add_slot(slot, max_queue_length=room)
            for event in events:
                self.add_event(event, ["uid", "k", "x"])
            self.set_activation_policy(policy or immediate_policy())
            self.set_concurrency(conc)

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            logic(self, slot_data, policy_message, state)

    return Made()


def _odd_value(at: int) -> Any:
    values: tuple[Any, ...] = (
        float("nan"), float("inf"), 10**400, -0.0, {1: "a", "1": "b"}, {True: 1}, (1, [2, {3}]), b"\0\xff", "\udce9",
        "a\0b", datetime(2024, 10, 27, 2, 30, tzinfo=UTC), Decimal("NaN"), None, _deep(50), {"a.b": {"": "~"}},
        frozenset({1, 2}), complex(1, 2), "x" * 5_000, Parcel("\udce9"), {"in": [Parcel("1")]},
    )  # fmt: skip
    return values[at % len(values)]


def _deep(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = [value]
    return value


def _keys(changes: Changes) -> Iterator[tuple[str, ...]]:
    """The texts of every key of a table."""
    yield from ((worker_id,) for worker_id in changes.workers)
    yield from ((job_id,) for job_id in changes.jobs)
    yield from ((row.worker_id, row.place) for row in changes.items)
    yield from changes.notes
    yield from ((row.worker_id, row.kind, row.owner) for row in changes.entries)
    yield from ((row.flow_id, row.key) for row in changes.keys)


def _worker_ids(changes: Changes) -> set[str]:
    rows: list[Any] = [*changes.items, *changes.taken, *changes.notes, *changes.entries, *changes.letters]
    found = {row.worker_id for row in rows}
    found.update(changes.forgotten, changes.workers, (worker_id for worker_id, _ in changes.redriven))
    found.update(row.worker_id for row in changes.jobs.values())
    return found


def check(seed: int, tell: Callable[[object], object] = bool) -> Story:
    """Play the story of a seed, and raise what breaks a rule."""
    story = Story(seed, tell)
    try:
        story.run()
    except Exception as error:
        for breach in story.books.breaches:
            error.add_note(breach)
        raise
    return story


if __name__ == "__main__":
    import logging
    import sys
    import traceback

    logging.disable(logging.CRITICAL)
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    if len(numbers) == 1:
        check(numbers[0], print)
    else:
        broken: Counter[str] = Counter()
        for each in range(*numbers):
            try:
                check(each)
            except BaseException as error:
                kind = f"{type(error).__name__}: {str(error)[:150]}"
                broken[kind] += 1
                where = traceback.format_exception(error)[-3:-1] if "-v" in sys.argv else ""
                print(each, kind, *where, flush=True)
        print(sum(broken.values()), "broken")
