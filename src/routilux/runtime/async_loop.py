"""Asynchronous logic: one event loop on one thread, started with the first routine that needs it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from threading import Event, Thread, get_ident
from typing import Any

from routilux.kernel.mailbox import FULL, QUEUED, Mailbox, SlotQueue
from routilux.ports import Task
from routilux.runtime import turns
from routilux.runtime.activation import AsyncActivation
from routilux.runtime.attendant import OnFault
from routilux.runtime.waiting import in_task

Done = Callable[[BaseException | None], None]


class AsyncTasks:
    """Runs logic as tasks of an event loop; everything here happens on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: dict[asyncio.Task[None], Any] = {}

    def activations(self) -> list[Any]:
        return list(self._tasks.values())

    def activation_here(self) -> Any:
        """The activation whose logic is the running task."""
        return self._tasks.get(asyncio.current_task(self._loop))  # type: ignore[arg-type]

    def start(self, task: Task, done: Done) -> Callable[[], None]:
        run = self._run(task, done)
        try:
            created = self._loop.create_task(run, context=task.context)
        except BaseException:
            run.close()
            raise
        self._tasks[created] = task.activation
        created.add_done_callback(lambda ended: self._tasks.pop(ended, None))

        def cancel() -> None:
            self._loop.call_soon_threadsafe(created.cancel)

        return cancel

    def cancel_all(self) -> None:
        """Cancel what is not cancelled already: what a task does then to tidy up is not cut short."""
        for task, activation in list(self._tasks.items()):
            activation.cut_off()
            if not task.cancelling():
                task.cancel()

    def close(self) -> None:
        self.cancel_all()

    def when_empty(self, call: Callable[[], None]) -> None:
        """Call this as soon as no task runs."""
        for task in list(self._tasks):
            task.add_done_callback(lambda _: self._loop.call_soon(self.when_empty, call))
            return
        call()

    async def _run(self, task: Task, done: Done) -> None:
        failure: BaseException | None = None
        try:
            try:
                if (
                    task.activation.job.halted and turns.put_back(task.activation)
                ) or not task.activation.takes_off():
                    self._tasks.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
                    turns.leave(task.activation.node.worker)
                    return
                result = await _Paced(task.activation, task.logic(task.slot_data, task.message, task.state))
                if result is not None:
                    turns.tell_of_result(task.activation, result)
            finally:
                task.activation.landed()
        except BaseException as error:  # noqa: BLE001 user code; SystemExit would end the loop for everybody
            failure = error
        self._tasks.pop(asyncio.current_task(), None)  # type: ignore[arg-type]  # before a caller looks what runs
        done(failure)


class AsyncLoop:
    """A TaskRunner with a thread of its own. ``launch`` is called there for each mailbox that was submitted."""

    def __init__(
        self, launch: Callable[[Mailbox], None], clock: Callable[[], float], on_fault: OnFault
    ) -> None:
        self._launch = launch
        self._clock = clock
        self._on_fault = on_fault
        self._ending = False
        self._context = Context()  # of what is not logic: that of an activation is not for it, nor kept by it
        self._loop = self._context.run(asyncio.new_event_loop)
        self._tasks = AsyncTasks(self._loop)
        self._todo: deque[Callable[[], Any]] = deque()
        self._woken = False
        self._started = Event()
        self._thread = Thread(target=self._run_loop, name="routilux-async", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def activations(self) -> list[Any]:
        return self._tasks.activations()

    def activation_here(self) -> Any:
        return self._tasks.activation_here()

    def submit(self, mailbox: Mailbox) -> None:
        self._do(lambda: self._launch(mailbox))

    def start(self, task: Task, done: Done) -> Callable[[], None]:
        if self._thread.ident == get_ident():
            return self._tasks.start(task, done)
        cancels: list[Callable[[], None]] = []

        def start() -> None:
            try:
                cancels.append(self._tasks.start(task, done))
            except BaseException as error:  # noqa: BLE001 logic may give the loop a factory of tasks
                done(error)

        self._do(start)
        return lambda: self._do(lambda: [cancel() for cancel in cancels])

    def close(self, deadline: float | None = None) -> bool:
        """Cancel what still runs and end the thread; False if that took longer than until the deadline."""
        if self._thread.is_alive():
            self._do(self._cancel_all)
            timeout = None if deadline is None else max(0.0, deadline - self._clock())
            if self._thread.ident != get_ident():
                self._thread.join(timeout)
        return not self._thread.is_alive()

    def leave_behind(self) -> None:
        """Called in a forked child: its thread ends, if it is the one that has forked."""
        self._ending = True
        if self._thread.ident == get_ident():
            self._loop.stop()

    # -- on the loop's thread ------------------------------------------------------------------------------

    def _do(self, call: Callable[[], Any]) -> None:
        """Do this on the loop's thread. One wake-up serves everything that comes until it is answered."""
        self._todo.append(call)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._work, context=self._context)
            except RuntimeError:
                self._todo.clear()  # the loop is closed: its runtime has shut down

    def _work(self) -> None:
        self._woken = False
        for _ in range(len(self._todo)):
            self._survive(self._todo.popleft())
        if self._todo and not self._woken:
            self._woken = True
            self._loop.call_soon(self._work, context=self._context)

    def _cancel_all(self) -> None:
        self._tasks.cancel_all()
        self._loop.call_soon(self._tasks.when_empty, self._end)

    def _end(self) -> None:
        self._ending = True
        self._loop.stop()

    def _run_loop(self) -> None:
        """Until the runtime ends it. A task of the user's that raises SystemExit, or stops the loop, interrupts it."""
        loop = self._loop
        asyncio.set_event_loop(loop)
        loop.call_soon(self._started.set)
        while not (self._ending or loop.is_closed()):
            self._survive(loop.run_forever)
        self._survive(lambda: loop.run_until_complete(loop.shutdown_asyncgens()))
        loop.close()

    def _survive(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 the loop goes on, whatever this is
            self._on_fault("the event loop", error, "it goes on")


class _Paced:
    """Runs a coroutine and empties its activation's outbox whenever the coroutine waits for something."""

    def __init__(
        self,
        activation: AsyncActivation,
        coroutine: Coroutine[Any, Any, Any],
    ) -> None:
        self._activation = activation
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, activation = self._coroutine, self._activation
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = coroutine.send(answer) if error is None else coroutine.throw(error)
                except StopIteration as end:
                    return end.value
                finally:
                    answer = error = None
                try:
                    answer = yield waits_for
                    if activation.outbox:
                        yield from self._empty().__await__()
                except BaseException as raised:  # noqa: BLE001 belongs to the coroutine, a cancellation above all
                    error = raised
        finally:
            try:
                if activation.outbox:
                    yield from self._empty().__await__()
            except BaseException as error:
                self._discard(error)
                raise

    async def _empty(self) -> None:
        """Deliver what waits in the outbox, in order, each as soon as there is room."""
        activation = self._activation
        waits = activation.node.worker.back_pressure.waits_inside
        while (queue := self._delivered()) is not None:
            await in_task(waits(queue, partial(self._delivered_to, queue), activation, in_task=True))

    def _delivered_to(self, queue: SlotQueue) -> int:
        """As an offer would answer."""
        return FULL if self._delivered() is queue else QUEUED

    def _delivered(self) -> SlotQueue | None:
        """Deliver as much as there is room for; the slot that is full."""
        activation = self._activation
        outbox, worker = activation.outbox, activation.node.worker
        while outbox:
            route, item = outbox[0]
            if activation.job.ended or worker.stopped:
                self._discard(activation.unwanted())
                return None
            code = route.offer(item)
            if code == FULL:
                return route.queue
            outbox.popleft()
            worker.accept(code, route.queue, item, activation)
        return None

    def _discard(self, error: BaseException) -> None:
        """Set aside what is left in the outbox: it is not wanted, or there is no room for it."""
        activation, worker = self._activation, self._activation.node.worker
        outbox = activation.outbox or deque()
        while outbox:
            route, item = outbox.popleft()
            if activation.job.ended or worker.stopped:
                worker.set_aside(route.mailbox, [item])
            else:
                worker.dead_letter(route.mailbox, item, "not delivered", activation.abandoned or error)
            worker.settle([item])
