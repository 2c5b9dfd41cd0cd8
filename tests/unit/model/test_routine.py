from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from routilux.errors import (
    FlowInUseError,
    InvalidTypeError,
    InvalidValueError,
    MissingPolicyError,
    NotInActivationError,
    RoutiluxError,
    StateError,
    UnknownEventError,
    UnknownSlotError,
)
from routilux.model.context import running
from routilux.model.flow import Flow
from routilux.model.policy import (
    ActivationPolicy,
    all_slots_ready_policy,
    batch_size_policy,
    immediate_policy,
)
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine
from tests.unit.model.samples import Step, chain, declared, refusal, shape, table


class Activation:
    """Notes what the routine asks of it."""

    def __init__(self, routine: Routine, debug: bool = False) -> None:
        self.routine = routine
        self.debug = debug
        self.calls: list[tuple[Any, ...]] = []

    def emit(self, event: Any, data: dict[str, Any]) -> None:
        self.calls.append(("emit", event, data))

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        self.calls.append(("output", output_type, data))

    def routine_stats(self, routine: Routine, state: Any) -> dict[str, Any]:
        return {"asked": (routine, state)}


@contextlib.contextmanager
def activation_of(routine: Routine, debug: bool = False) -> Iterator[Activation]:
    activation = Activation(routine, debug)
    token = running.set(activation)
    try:
        yield activation
    finally:
        running.reset(token)


def plain(slot_data: Any, policy_message: Any, state: Any) -> None: ...


async def awaiting(slot_data: Any, policy_message: Any, state: Any) -> None: ...


# -- declarations ------------------------------------------------------------------------------------------


def test_what_is_declared_can_be_read() -> None:
    handler = ErrorHandler("skip")
    routine = Routine()
    chained = (
        routine.set_config(a=1, b=2)
        .set_config(b=3)
        .set_logic(plain)
        .set_activation_policy(batch_size_policy(2))
        .set_error_handler(handler)
        .set_concurrency(4)
        .set_timeout(1)
    )
    assert chained is routine
    assert declared(routine) == (
        {},
        {},
        {"a": 1, "b": 3},
        batch_size_policy(2),
        handler,
        4,
        1.0,
        plain,
        None,
        "",
    )
    assert (routine.get_config("a"), routine.get_config("x"), routine.get_config("x", 5)) == (1, None, 5)


@pytest.mark.parametrize("policy", [immediate_policy(), all_slots_ready_policy("customer")])
def test_lanes_go_with_policies_whose_activations_have_one_key(policy: ActivationPolicy) -> None:
    step = Step().set_activation_policy(policy).set_concurrency(20, by="customer")
    assert (step.concurrency, step.concurrency_by) == (20, "customer")
    assert step.set_concurrency(2).concurrency_by is None


@pytest.mark.parametrize(
    ("policy", "fragments"),
    [
        (batch_size_policy(2), ("takes several items, which may differ in 'customer'", "immediate_policy()")),
        (all_slots_ready_policy("order"), ("joined by 'order'", "all_slots_ready_policy(by='customer')")),
        (all_slots_ready_policy(), ("one item of each slot", "all_slots_ready_policy(by='customer')")),
    ],
)
def test_lanes_are_refused_where_an_activation_may_have_several_keys(
    policy: ActivationPolicy, fragments: tuple[str, ...]
) -> None:
    step = Step().set_activation_policy(policy)
    refusal(lambda: step.set_concurrency(2, by="customer"), InvalidValueError, *fragments)
    assert (step.concurrency, step.concurrency_by) == (1, None)


def test_what_can_be_read_cannot_be_written() -> None:
    step = Step()
    for mapping in (step.slots, step.events, step.config):
        with pytest.raises(TypeError, match="item assignment"):
            mapping["x"] = 1


REFUSED: list[tuple[Callable[[Routine], object], type[RoutiluxError], tuple[str, ...]]] = [
    (lambda r: r.set_activation_policy(immediate_policy), InvalidTypeError, ("call it: immediate_policy()",)),
    (lambda r: r.set_activation_policy(plain), InvalidTypeError, ("wrap it: custom_policy(plain)",)),
    (lambda r: r.set_activation_policy("immediate"), InvalidTypeError, ("routilux.activation_policies",)),
    (
        lambda r: r.set_error_handler("retry"),
        InvalidTypeError,
        ("error handler of routine Step", "ErrorHandler"),
    ),
    (lambda r: r.set_concurrency(0), InvalidValueError, ("concurrency of routine Step", "at least 1")),
    (lambda r: r.set_concurrency(True), InvalidTypeError, ("a whole number",)),
    (lambda r: r.set_concurrency(2, by=3), InvalidTypeError, ("(by)", '"job" or a payload key')),
    (lambda r: r.set_timeout(0), InvalidValueError, ("timeout of routine Step", "None means no limit")),
    (lambda r: r.set_timeout(float("inf")), InvalidValueError, ("more than 0 seconds",)),
    (lambda r: r.set_timeout("5"), InvalidTypeError, ("a number of seconds",)),
    (lambda r: r.set_logic("fn"), InvalidTypeError, ("logic of routine Step", "a callable logic(slot_data")),
    (
        lambda r: r.set_logic(lambda data: None),
        InvalidTypeError,
        ("logic(slot_data, policy_message, state)", "(data)"),
    ),
    (lambda r: r.set_logic(lambda a, b, c, d: None), InvalidTypeError, ("(a, b, c, d)", "three parameters")),
    (lambda r: r.set_logic(lambda a, *, b, c: None), InvalidTypeError, ("three parameters",)),
    (
        lambda r: r.set_logic(lambda a, b, c: (yield)),
        InvalidTypeError,
        ("generator", "self.emit()", "@routine"),
    ),
    (lambda r: setattr(r, "timeout", 5), InvalidValueError, ("Step.timeout", "set_… method", "'my_timeout'")),
    (lambda r: setattr(r, "emit", print), InvalidValueError, ("Step.emit", "'my_emit'")),
]


@table(("action", "error", "fragments"), REFUSED)
def test_what_cannot_be_set_is_refused_and_changes_nothing(
    action: Callable[[Routine], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    step = Step()
    before = declared(step)
    refusal(lambda: action(step), error, *fragments)
    assert declared(step) == before


@table(
    "logic",
    [
        plain,
        awaiting,
        lambda *args: None,
        lambda a, b, c, d=1: None,
        functools.partial(lambda x, a, b, c: None, 1),
        print,
        max,
    ],
)
def test_these_can_be_logic(logic: Any) -> None:
    assert Routine().set_logic(logic).own_logic is logic


CHANGES: list[Callable[[Routine], object]] = [
    lambda r: r.add_slot("new"),
    lambda r: r.add_event("new"),
    lambda r: r.set_config(new=1),
    lambda r: r.set_logic(plain),
    lambda r: r.set_activation_policy(immediate_policy()),
    lambda r: r.set_error_handler(ErrorHandler()),
    lambda r: r.set_concurrency(2),
    lambda r: r.set_timeout(2),
]


@table("change", CHANGES)
def test_nothing_changes_while_a_worker_of_the_flow_lives(change: Callable[[Routine], object]) -> None:
    flow = chain("a", "b")
    flow.hold("w1")
    before = shape(flow)
    refusal(
        lambda: change(flow.routines["a"]),
        FlowInUseError,
        "routine 'a'",
        "flow 'line'",
        "1 live worker(s)",
        "stop",
    )
    assert shape(flow) == before
    flow.let_go("w1")
    change(flow.routines["a"])


def test_a_subclass_may_use_every_name_that_is_not_one_of_a_routine() -> None:
    class Greedy(Routine):
        def __init__(self) -> None:
            self._slots = self._events = self._flow = self._policy = self._logic = None
            self.input = self.add_slot("input")
            super().__init__()
            self.output = self.add_event("output")
            self.name = "x"

    greedy = Greedy()
    assert (list(greedy.slots), list(greedy.events), greedy.name) == (["input"], ["output"], "x")
    Flow().add_routine(greedy)


# -- logic -------------------------------------------------------------------------------------------------


class Overriding(Routine):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None: ...


class AsyncOverriding(Routine):
    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None: ...


class AsyncCallable:
    async def __call__(self, slot_data: Any, policy_message: Any, state: Any) -> None: ...


@table(
    ("routine", "is_async"),
    [
        (Overriding(), False),
        (AsyncOverriding(), True),
        (Routine().set_logic(plain), False),
        (Routine().set_logic(awaiting), True),
        (Routine().set_logic(functools.partial(awaiting)), True),
        (Routine().set_logic(AsyncCallable()), True),
        (AsyncOverriding().set_logic(plain), False),
    ],
)
def test_logic_is_what_was_set_else_what_was_overridden(routine: Routine, is_async: bool) -> None:
    assert (routine.is_async, routine.bound_logic == routine.own_logic) == (is_async, True)


def test_logic_may_also_be_assigned() -> None:
    routine = Routine()
    assert routine.own_logic is None
    routine.logic = plain
    assert routine.own_logic is plain


def test_a_routine_without_logic_says_so() -> None:
    with pytest.raises(NotImplementedError, match="routine Routine has no logic"):
        Routine().logic({}, None, None)


def test_the_policy_is_immediate_for_handlers_and_never_silently_for_logic() -> None:
    routine = Routine()
    refusal(
        lambda: routine.effective_policy,
        MissingPolicyError,
        "no activation policy",
        "set_activation_policy()",
    )
    routine.add_slot("input", handler=print)
    assert (routine.activation_policy, routine.effective_policy) == (None, immediate_policy())
    routine.set_activation_policy(batch_size_policy(2))
    assert routine.effective_policy == batch_size_policy(2)


# -- handlers ----------------------------------------------------------------------------------------------

calls: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs) if args else kwargs)


def only_x(x: Any) -> None:
    note(x=x)


def x_and_default(x: Any, y: int = 5) -> None:
    note(x=x, y=y)


def keyword_only(*, x: Any) -> None:
    note(x=x)


def whole(data: Any) -> None:
    note(data=data)


def whole_by_default(data: Any = None) -> None:
    note(data=data)


def whole_and_rest(data: Any, **rest: Any) -> None:
    note(data=data, rest=rest)


def optional_and_rest(data: Any = None, **rest: Any) -> None:
    note(data=data, rest=rest)


def whole_and_x(data: Any, x: Any) -> None:
    note(data=data, x=x)


def rest_only(**rest: Any) -> None:
    note(rest=rest)


def no_parameters() -> None:
    note()


def by_position(payload: Any, /) -> None:
    note(payload=payload)


PAYLOAD = {"x": 1, "z": 2}
WITH_DATA = {"data": 7, "x": 1}

BY_NAME: list[tuple[Callable[..., Any], dict[str, Any], Any]] = [
    (note, PAYLOAD, {"x": 1, "z": 2}),
    (only_x, PAYLOAD, {"x": 1}),
    (only_x, {"x": 1}, {"x": 1}),
    (x_and_default, PAYLOAD, {"x": 1, "y": 5}),
    (x_and_default, {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (keyword_only, PAYLOAD, {"x": 1}),
    (whole, PAYLOAD, {"data": PAYLOAD}),
    (whole, WITH_DATA, {"data": 7}),
    (whole_by_default, PAYLOAD, {"data": PAYLOAD}),
    (whole_by_default, WITH_DATA, {"data": 7}),
    (whole_and_rest, PAYLOAD, {"data": PAYLOAD, "rest": PAYLOAD}),
    (whole_and_rest, WITH_DATA, {"data": 7, "rest": {"x": 1}}),
    (optional_and_rest, PAYLOAD, {"data": None, "rest": PAYLOAD}),
    (whole_and_x, PAYLOAD, {"data": PAYLOAD, "x": 1}),
    (whole_and_x, WITH_DATA, {"data": 7, "x": 1}),
    (rest_only, PAYLOAD, {"rest": PAYLOAD}),
    (no_parameters, PAYLOAD, {}),
    (by_position, PAYLOAD, {"payload": PAYLOAD}),
    (functools.partial(x_and_default, y=9), PAYLOAD, {"x": 1, "y": 9}),
    (calls.append, PAYLOAD, PAYLOAD),
    (operator.methodcaller("copy"), PAYLOAD, None),
]


@table(("handler", "payload", "called"), BY_NAME)
def test_a_handler_is_called_by_the_names_of_its_parameters(
    handler: Callable[..., Any], payload: dict[str, Any], called: Any
) -> None:
    calls.clear()
    routine = Routine()
    routine.add_slot("input", handler=handler)
    before = dict(payload)
    routine.bound_logic({"input": [payload]}, None, None)
    assert (calls, payload, routine.is_async) == ([called] if called is not None else [], before, False)


def test_each_payload_goes_to_the_handler_of_its_slot_in_order() -> None:
    calls.clear()
    routine = Routine()
    routine.add_slot("a", handler=only_x)
    routine.add_slot("b", handler=whole)
    routine.bound_logic({"b": [{"y": 1}], "a": [{"x": 2}, {"x": 3}]}, None, None)
    assert calls == [{"data": {"y": 1}}, {"x": 2}, {"x": 3}]


def test_one_async_handler_makes_the_logic_async() -> None:
    async def later(x: Any) -> None:
        await asyncio.sleep(0)
        note(later=x)

    calls.clear()
    routine = Routine()
    routine.add_slot("a", handler=later)
    routine.add_slot("b", handler=only_x)
    assert routine.is_async
    asyncio.run(routine.bound_logic({"a": [{"x": 1}], "b": [{"x": 2}]}, None, None))
    assert calls == [{"later": 1}, {"x": 2}]


@table(
    ("handler", "payload", "fragments"),
    [
        (only_x, {"y": 1}, ("handler of slot 'Routine.input'", "needs 'x'", "['y']", "mapping=", "default")),
        (whole_and_x, {"y": 1}, ("needs 'x'",)),
        (keyword_only, {}, ("needs 'x'", "only []")),
    ],
)
def test_a_payload_that_lacks_a_parameter_is_named(
    handler: Any, payload: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    routine = Routine()
    routine.add_slot("input", handler=handler)
    refusal(lambda: routine.bound_logic({"input": [payload]}, None, None), InvalidTypeError, *fragments)


# -- emit, send_output, stats ------------------------------------------------------------------------------


def test_emit_and_send_output_reach_the_activation() -> None:
    step = Step()
    with activation_of(step) as activation:
        step.emit("output", value=1, event="not the event", self="not the routine")
        step.events["output"].emit(value=2)
        step.send_output("line", output_type="text")
    assert activation.calls == [
        ("emit", "output", {"value": 1, "event": "not the event", "self": "not the routine"}),
        ("emit", step.events["output"], {"value": 2}),
        ("output", "line", {"output_type": "text"}),
    ]


@table(
    ("call", "name"),
    [
        (lambda r: r.emit("output"), "emit()"),
        (lambda r: r.send_output("line"), "send_output()"),
        (lambda r: r.stats(), "stats()"),
    ],
)
def test_outside_an_activation_they_say_where_to_call_them(call: Any, name: str) -> None:
    step = Step()
    refusal(
        lambda: call(step), NotInActivationError, name, "routine Step", "inside the logic", "copy_context()"
    )


@table(
    ("call", "fragments"),
    [
        (
            lambda step: step.emit("output", {"n": 1}),
            (
                "emit('output'): expected a payload as keyword arguments, got {'n': 1} (dict)",
                "emit('output', **data)",
            ),
        ),
        (lambda step: step.events["output"].emit({"n": 1}), ("write emit('output', **data)",)),
        (lambda step: step.emit("output", 7), ("write emit('output', key=value)",)),
        (lambda step: step.send_output("line", {"n": 1}), ("write send_output('line', **data)",)),
    ],
)
def test_a_payload_by_place_is_refused_with_the_call_that_is_meant(
    call: Any, fragments: tuple[str, ...]
) -> None:
    step = Step()
    with activation_of(step) as activation:
        refusal(lambda: call(step), InvalidTypeError, *fragments)
    assert activation.calls == []


def test_emitting_for_another_routine_names_both() -> None:
    flow = chain("a", "b")
    with activation_of(flow.routines["a"]):
        refusal(
            lambda: flow.routines["b"].emit("output"),
            NotInActivationError,
            "emit() of routine 'b'",
            "is of routine 'a' (Step)",
        )


def test_stats_are_those_of_the_current_or_the_given_worker() -> None:
    class State:
        def get_routine_state(self, routine_id: str, default: Any) -> Any:
            return {"of": routine_id}

        def counters(self, routine_id: str) -> dict[str, Any]:
            return {"activations": 3}

    state, step = State(), chain("a").routines["a"]
    assert step.stats(state) == {"of": "a", "activations": 3}
    with activation_of(step):
        assert (step.stats(), step.stats(state)) == ({"asked": (step, None)}, {"asked": (step, state)})


def test_an_event_is_known_by_name_and_by_object() -> None:
    step, other = Step(), Step()
    assert (step.event_name("output"), step.event_name(step.events["output"])) == ("output", "output")
    fragments = ("no event 'outptu' in routine Step", "there is only 'output'", "add_event('outptu')")
    refusal(lambda: step.event_name("outptu"), UnknownEventError, *fragments)
    for stranger in (other.events["output"], [], None):
        refusal(
            lambda stranger=stranger: step.event_name(stranger), UnknownEventError, "one of its own events"
        )
    assert type(step.unknown_slot("x")) is UnknownSlotError


# -- state on the routine object ---------------------------------------------------------------------------


def test_assigning_an_attribute_during_an_activation_is_warned_about_once_per_attribute() -> None:
    class Counting(Routine):
        count = 0

    counting = Counting()
    with activation_of(counting):
        with pytest.warns(
            RuntimeWarning, match=r"Counting\.count is assigned during .*self\.state\['count'\]"
        ) as seen:
            counting.count += 1
        assert seen[0].filename == __file__
        counting.count += 1  # the second time is silent: warnings are errors here
        with pytest.warns(RuntimeWarning, match=r"Counting\.other"):
            counting.other = 1
    assert counting.count == 2


def test_in_debug_mode_it_is_refused() -> None:
    class Debugged(Routine):
        count = 0

    debugged = Debugged()
    with activation_of(debugged, debug=True):
        refusal(lambda: setattr(debugged, "count", 1), StateError, "Debugged.count")
    assert debugged.count == 0


def test_other_routines_and_times_are_free() -> None:
    step, other = Step(), Step()
    with warnings.catch_warnings(), activation_of(step):
        warnings.simplefilter("error")
        other.mine = 1
        Step().mine = 1
    step.mine = 1


def test_a_routine_is_named_by_its_class_until_it_has_an_id() -> None:
    step = Step()
    assert (str(step), repr(step), step.routine_id, step.flow) == ("routine Step", "<Step ''>", "", None)
    flow = Flow()
    flow.add_routine(step, "s")
    assert (str(step), repr(step), step.flow) == ("routine 's' (Step)", "<Step 's'>", flow)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("timeout", "self.timeout is set by set_timeout(); call that in __init__"),
        ("concurrency", "set by set_concurrency()"),
        ("error_handler", "set by set_error_handler()"),
        ("activation_policy", "set by set_activation_policy()"),
        ("config", "made by set_config()"),
        ("slots", "made by add_slot()"),
        ("events", "made by add_event()"),
        ("routine_id", "its id in the flow"),
        ("flow", "take another name, such as 'my_flow'"),
    ],
)
def test_a_class_attribute_in_place_of_a_setting_is_refused_with_the_call_that_sets_it(
    name: str, hint: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        type("Own", (Routine,), {name: 5})
    assert f"the class Own has an attribute {name!r} of its own" in str(caught.value)
    assert hint in str(caught.value)


def test_a_class_attribute_named_state_is_refused_where_the_class_is_made() -> None:
    with pytest.raises(InvalidValueError, match="the class Own has an attribute 'state' of its own"):

        class Own(Routine):
            state = {}  # type: ignore[assignment]  # noqa: RUF012

    with pytest.raises(InvalidValueError, match="the class Property has an attribute 'state'"):

        class Property(Routine):
            @property
            def state(self) -> int:  # type: ignore[override]
                return 1

    class Plain:
        state = 1

    with pytest.raises(InvalidValueError, match="the class Mixed has an attribute 'state'"):

        class Mixed(Plain, Routine):  # type: ignore[misc]
            pass
