"""Documents: any flow comes back from its document, and no text does anything but give a flow or a `DslError`."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from routilux import ErrorHandler, Flow, FlowBuilder
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.dsl import DslError, from_dict, loads_json, loads_yaml, schema
from routilux.dsl.shape import CONNECTION_KEYS, EXECUTION_KEYS, ROUTINE_KEYS, SLOT_KEYS, TOP_KEYS
from routilux.model.policy import policy_from_dict
from tests.unit.dsl.samples import GOOD, registry

REGISTRY = registry()
SEEDS = [GOOD, loads_yaml(GOOD, registry=REGISTRY).to_json(registry=REGISTRY)]

names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["yes", "1:30", "0o7", "1e3", "~", "<<", "2024-01-01", "- a", "a: b", "x\ny"])
)
keys = st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
seconds = st.floats(0.001, 1e6)
policies = st.one_of(
    st.just(immediate_policy()),
    st.builds(all_slots_ready_policy, st.sampled_from([None, "job", "a key"]), st.none() | st.floats(0, 1e6)),
    st.builds(batch_size_policy, st.integers(1, 40), st.none() | st.floats(0, 1e6), st.booleans()),
    st.builds(time_interval_policy, st.floats(0, 1e6)),
)
handlers = st.one_of(
    st.builds(ErrorHandler, strategy=st.sampled_from(["stop", "continue", "skip"])),
    st.builds(
        ErrorHandler,
        strategy=st.just("retry"),
        max_retries=st.integers(0, 9),
        retry_delay=st.floats(0, 100),
        retry_backoff=st.floats(1, 10),
        max_delay=st.none() | st.floats(0, 100),
        jitter=st.floats(0, 1),
        retryable_exceptions=st.sampled_from([(Exception,), (OSError, ValueError)]),
        on_exhausted=st.sampled_from(["stop", "continue", "skip"]),
    ),
)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    flow = Flow(
        draw(names),
        execution_strategy=draw(st.sampled_from([None, "sequential", "concurrent"])),
        max_workers=draw(st.none() | st.integers(1, 99)),
        execution_timeout=draw(st.none() | seconds),
    )
    ids = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    for routine_id in ids:
        made = REGISTRY.create(draw(st.sampled_from(["work", "any"])))
        made.set_config(**draw(st.dictionaries(keys, values, max_size=3)))
        made.set_activation_policy(draw(policies))
        made.set_error_handler(draw(st.none() | handlers))
        made.set_concurrency(draw(st.integers(1, 5)))
        made.set_timeout(draw(st.none() | seconds))
        slot = draw(st.sampled_from(list(made.slots)))
        made.set_queue(slot, max_queue_length=draw(st.integers(40, 99)), watermark=draw(st.floats(0.01, 1)))
        flow.add_routine(made, routine_id)
        flow.describe(draw(st.text(max_size=10)), routine_id)
    ends = [
        (source, "output", target, slot)
        for source in ids
        for target in ids
        for slot in flow.routines[target].slots
    ]
    for end in draw(st.lists(st.sampled_from(ends), max_size=8, unique=True)):
        flow.connect(*end, mapping=draw(st.none() | st.just({"a": "b c", "yes": "1"})))
    if draw(st.booleans()):
        first = flow.routines[ids[0]]
        flow.set_entry(ids[0], draw(st.sampled_from([None, *first.slots])))
    flow.set_error_handler(draw(st.none() | handlers))
    return flow.describe(draw(st.text(max_size=30)))


@given(flows())
@settings(max_examples=60)
def test_every_flow_comes_back_from_its_document(flow: Flow) -> None:
    text, twin = flow.to_yaml(registry=REGISTRY), flow.to_json(registry=REGISTRY)
    again = loads_yaml(text, registry=REGISTRY)
    assert again.to_yaml(registry=REGISTRY) == text
    assert again.to_json(registry=REGISTRY) == twin
    assert loads_json(twin, registry=REGISTRY).to_yaml(registry=REGISTRY) == text
    assert again.fingerprint() == flow.fingerprint()
    assert [error.message for error in VALIDATOR.iter_errors(json.loads(twin))] == []


@st.composite
def changed_data(draw: st.DrawFn) -> dict[str, Any]:
    """A document in which a few values, at any depth, are others, gone, or under another key."""
    data: dict[str, Any] = json.loads(SEEDS[1])
    for _ in range(draw(st.integers(1, 3))):
        inner: Any = data
        while isinstance(inner, (dict, list)) and inner:
            at = draw(st.sampled_from(list(inner if isinstance(inner, dict) else range(len(inner)))))
            if not isinstance(inner[at], (dict, list)) or draw(st.integers(0, 2)) == 0:
                break
            inner = inner[at]
        if not isinstance(inner, (dict, list)) or not inner:
            continue
        match draw(st.sampled_from(["value", "value", "gone", "key"])):
            case "value":
                inner[at] = draw(
                    values | st.sampled_from([0, 1, -1, 0.5, "read", "work", "read.path", "a.b", []])
                )
            case "key" if isinstance(inner, dict):
                inner[draw(st.sampled_from([*ALL_KEYS, "no"]))] = inner[at]
            case _:
                del inner[at]
    return data


ALL_KEYS = [*TOP_KEYS, *ROUTINE_KEYS, *EXECUTION_KEYS, *SLOT_KEYS, *CONNECTION_KEYS]


@given(changed_data())
@settings(max_examples=300)
def test_a_changed_document_is_a_flow_or_a_dsl_error_and_the_schema_takes_what_the_loader_takes(
    data: dict[str, Any],
) -> None:
    outcome(loads_json, json.dumps(data))
    try:
        flow = from_dict(data, registry=REGISTRY)
    except DslError as error:
        assert error.problems
    else:
        assert (
            from_dict(flow.to_dict(registry=REGISTRY), registry=REGISTRY).fingerprint() == flow.fingerprint()
        )


def rebuilt(document: dict[str, Any]) -> Flow:
    """What a builder makes that is told all that the document says."""
    execution = document.get("execution", {})
    builder = FlowBuilder(
        document["flow_id"],
        execution_strategy=execution.get("strategy"),
        max_workers=execution.get("max_workers"),
        execution_timeout=execution.get("timeout"),
        create=REGISTRY.create,
    )
    builder.describe(document.get("description", ""))
    for each in document.get("connections", []):
        builder.connect(each["from"], each["to"], mapping=each.get("mapping"))
    if "entry" in document:
        builder.entry(document["entry"])
    if "error_handler" in document:
        builder.error_handler(ErrorHandler.from_dict(document["error_handler"]))
    for routine_id, each in document["routines"].items():
        builder.add(
            each["class"],
            routine_id,
            each.get("config"),
            activation=policy_from_dict(each["activation"]) if "activation" in each else None,
            error_handler=ErrorHandler.from_dict(each["error_handler"]) if "error_handler" in each else None,
            concurrency=each.get("concurrency"),
            timeout=each.get("timeout"),
            slots=each.get("slots"),
            description=each.get("description", ""),
        )
    return builder.build()


@given(flows())
@settings(max_examples=60)
def test_a_builder_makes_the_flow_of_every_document(flow: Flow) -> None:
    document = flow.to_dict(registry=REGISTRY)
    assert rebuilt(document).to_dict(registry=REGISTRY) == document


PIECES = [
    *"{}[],:&*!|>'\"%@`-?#~\n\t \r\x00\ufeff\u2028ä😀", "\n  ", ": ", "- ", "<<", "!!python/name:os.system ", "&a ",
    "*a", "---\n", "...", "%YAML 1.1\n", "0x", "1e999", "null", "\\u0000", "lambda x: x", "class", "config", "routines",
    "connections", "from", "os.system", "[" * 50, "{a: " * 45, "9" * 5000, "__class__",
]  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A document with a few pieces cut out, doubled, or put in."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from([*PIECES, "", text[start:end] * 2]) | st.text(max_size=5))
        text = text[:start] + piece + text[end:]
    return text


VALIDATOR = Draft202012Validator(schema(REGISTRY))


def outcome(loads: Any, text: str | bytes) -> str:
    """``flow`` or ``error``; any other exception is a failure of the loader."""
    try:
        flow = loads(text, registry=REGISTRY)
    except DslError as error:
        assert error.problems
        assert all(each.line >= 1 and each.column >= 1 for each in error.problems)
        assert "\x00" not in str(error)
        return "error"
    assert isinstance(flow, Flow)
    written = flow.to_yaml(registry=REGISTRY)
    assert loads_yaml(written, registry=REGISTRY).to_yaml(registry=REGISTRY) == written
    if loads is loads_json:
        assert [error.message for error in VALIDATOR.iter_errors(json.loads(text))] == []
    return "flow"


@given(mutations())
@settings(max_examples=300)
def test_a_spoilt_document_is_a_flow_or_a_dsl_error(text: str) -> None:
    outcome(loads_yaml, text)
    outcome(loads_json, text)


@given(st.binary(max_size=200) | st.text(max_size=200))
@settings(max_examples=150)
def test_so_is_anything_else(text: str | bytes) -> None:
    assert outcome(loads_yaml, text) == "error"
    assert outcome(loads_json, text) == "error"
