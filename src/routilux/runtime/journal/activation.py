"""An activation whose effects wait until it is written."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from routilux.errors import ExecutionError, RuntimeClosedError, StoreError
from routilux.kernel.activation import OVER
from routilux.model.item import Item, Output, Payload, SharedOutput
from routilux.model.recovery import ERROR_EVENT
from routilux.ports import ItemKey
from routilux.runtime.activation import LiveActivation, TappedActivation
from routilux.runtime.journal.draft import Draft
from routilux.runtime.output import OutputRecord
from routilux.tracebacks import kept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from routilux.kernel.account import Account
    from routilux.kernel.gathering import Batch
    from routilux.kernel.mailbox import Mailbox, SlotQueue
    from routilux.model.event import Event
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Route


DRAFT_EMITS = 1_000_000
DRAFT_BYTES = 256 * 2**20


class JournaledActivation(LiveActivation):
    """Emits gather in its draft: it never waits for room, and a failure leaves no trace of them.

    What is sent is what is stored: a receiver gets a copy that was read back from its JSON form.
    """

    outbox = None  # asynchronous logic has nothing to wait for either
    named: str | None = None  # its key in the store, where that is not made as it is today
    message_form: bytes | None = None  # what the policy said, as it is stored
    is_used = False  # an earlier run has had its payloads, and may have changed them
    claimed = False  # its items are written down as its own, so a later attempt has just the same ones
    noted = False  # the store has a note of it
    tried_alone = False  # it was given the chance to run with nothing beside it
    has_checkpoint = False  # the store has its last checkpoint
    in_conflict = False  # this run of it does not count, whatever logic makes of a StateConflict

    def __init__(self, mailbox: Mailbox, batch: Batch, job: Account, started: float) -> None:
        super().__init__(mailbox, batch, job, started)
        self.draft = Draft()
        if self.worker.notes.checkpoints:
            self._find_checkpoint()

    def _find_checkpoint(self) -> None:
        known = self.worker.notes.checkpoints
        self.checkpointed = known.pop((self.mailbox.routine_id, self.key), None)
        self.has_checkpoint = self.checkpointed is not None

    @property
    def key(self) -> str:
        return self.named or super().key

    def keep_key(self, key: str) -> None:
        """The store has it under this key, which an older version has made of its items."""
        if key != self.key:
            self.named = key
            self._find_checkpoint()

    @property
    def worker(self) -> JournaledWorker:
        return self.node.worker  # type: ignore[return-value]

    def emit(self, event: Event | str, data: Payload) -> None:
        node = self.node
        try:
            routes = node.routes[event]  # type: ignore[index]
        except (KeyError, TypeError):  # an Event, or what is no event
            event = self.routine.event_name(event)
            routes = node.routes[event]
        if node.checks is not None:
            node.check_event(str(event), data)
        if self.abandoned is not None or (self.job.halted and self.job.ended):
            raise self.unwanted()
        worker, draft = self.worker, self.draft
        where = f"routine {self.mailbox.routine_id!r} event {str(event)!r}"
        encoded = worker.encode(data, where)
        if not routes:
            self._keep_output(
                Output(self.mailbox.routine_id, str(event), worker.decode(encoded, where)), where
            )
            self.emitted += 1
            return
        if node.keyed:
            self._check_keys(routes, worker.decode(encoded, where))
        if node.refusable:
            draft.into = self._into_full(routes)
        for route in routes:
            form = encoded if route.mapping is None else worker.encode(route.rename(data), where)
            draft.emits.append((route, form))
            draft.size += len(form)
        self.emitted += 1
        if draft.size > DRAFT_BYTES or len(draft.emits) > DRAFT_EMITS:
            raise self.too_much()

    def _check_keys(self, routes: Sequence[Route], read_back: Payload) -> None:
        """What is read back is what is queued: its key has to be one."""
        for route in routes:
            if route.key_of is not None:
                route.key_of(route.target, read_back if route.mapping is None else route.rename(read_back))

    def _into_full(self, routes: Sequence[Route]) -> dict[SlotQueue, int]:
        """``Draft.into`` with these; raises where a slot that refuses has no room for all that the draft sends it."""
        into = dict(self.draft.into)
        for route in routes:
            if not route.refuses:
                continue
            queue = route.queue
            before = into.get(queue, 0)
            if before >= queue.mailbox.room(queue.name):
                why = f"this activation has emitted {before} more" if before else "it is full"
                raise self.worker.full_error(queue, why)
            into[queue] = before + 1
        return into

    def _keep_output(self, output: Output, where: str) -> None:
        """Give an output to each job of this activation."""
        worker, members = self.worker, self.job.members
        stored: Any = output
        if len(members) > 1:
            mark = worker.engine.driver.unique()
            output, stored = SharedOutput.of(output, mark), [output, mark]
        data = worker.encode(stored, where)
        self.draft.size += len(data) * len(members)
        for member in members:
            self.draft.entries.append((member.job.output_list, output, data))
        if output.event == ERROR_EVENT:
            error = self.tell_unheard(output.data)
            noted = worker.encode(kept(error), "error")
            for member in members:
                self.draft.entries.append((member.job.error_list, error, noted))

    def emit_failure(self, failure: BaseException) -> None:
        """Of what the logic did before it failed nothing stays."""
        self.draft = Draft()
        with suppress(StoreError):  # it takes nothing now; most logic does not change what it is given
            self.renew_payloads()
        super().emit_failure(failure)

    def send_output(self, output_type: str, data: Payload) -> None:
        """The handler hears it at once; the log has it when the activation is handed over."""
        worker = self.worker
        for member in self.job.members:
            time = worker.engine.driver.clock.time()
            output = OutputRecord(time, member.job.job_id, self.mailbox.routine_id, output_type, data)
            self.draft.outputs.append(output)
            if worker.state.output_handler is not None:
                worker.state.output_handler.handle(output)

    def cut_off(self) -> None:
        """As a kill leaves it: what the logic still does is discarded, and it runs again in the same attempt."""
        if self.abandoned is not OVER and not self.worker.for_good:
            self.abandoned = RuntimeClosedError(
                f"routine {self.mailbox.routine_id!r} still runs, and worker {self.worker.worker_id!r} has stopped; "
                "what it does is discarded, and it runs again when the worker is opened. Let this exception end the "
                "logic",
                routine_id=self.mailbox.routine_id,
                worker_id=self.worker.worker_id,
            )

    def renew(self) -> None:
        """Its last run does not count, and nothing of it stays."""
        if self.timer is not None:
            self.timer.cancel()
        self.draft, self.merged, self.emitted, self.in_conflict = Draft(), None, 0, False
        self.is_used = True
        self.abandoned = OVER  # until it starts again

    def renew_payloads(self) -> None:
        """Have what was acknowledged, in place of objects that an earlier run may have changed. Raises StoreError."""
        worker, places = self.worker, self.node.places
        keys = [ItemKey(worker.worker_id, places[item[1]], item[0]) for item in self.batch]
        stored = {ItemKey(*row[:3]): row.data for row in worker.journal.store.items_of(keys)}
        self.batch = tuple(
            (*item[:2], worker.decode(stored[key], key.place), *item[3:]) if key in stored else item
            for key, item in zip(keys, self.batch, strict=True)
        )
        if self.message_form is not None:
            self.message = worker.decode(self.message_form, f"policy message of routine {self.routine_id!r}")
        self.is_used = False

    def takes_off(self) -> bool:
        return self.worker.journal.flights.begin(self)

    def landed(self) -> None:
        self.worker.journal.flights.end(self)

    def too_much(self) -> ExecutionError:
        draft = self.draft
        return ExecutionError(
            f"one activation of routine {self.mailbox.routine_id!r} has emitted {len(draft.emits):,} items, and with "
            f"what else it has changed these take {draft.size / 2**20:,.0f} MiB of memory until it has ended. Call "
            "current().checkpoint(position) now and then, and go on from current().checkpointed in a later attempt",
            routine_id=self.mailbox.routine_id,
        )

    def checkpoint(self, value: Any) -> None:
        self.worker.handover.checkpoint(self, value)
        self.checkpointed = value

    async def acheckpoint(self, value: Any) -> None:
        await self.worker.handover.checkpoint_async(self, value)
        self.checkpointed = value

    async def aonce(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return await self.worker.notes.once_async(self, name, call)

    def once(self, name: str, call: Callable[[], Any]) -> Any:
        return self.worker.notes.once(self, name, call)

    def _unusual(self, code: int, route: Any, item: Item) -> None:
        raise AssertionError("emits of a journaled activation are delivered when it has been written")


class TappedJournaledActivation(TappedActivation, JournaledActivation):
    pass
