from __future__ import annotations

from collections.abc import Callable

from routilux.errors import (
    DuplicateNameError,
    InvalidTypeError,
    InvalidValueError,
    RoutiluxError,
    UnknownFlowError,
)
from routilux.model.flow import Flow
from routilux.model.registry import FlowRegistry
from routilux.monitoring.flow_registry import FlowRegistry as PublicFlowRegistry
from tests.unit.model.samples import refusal, table


def test_flows_are_found_by_name() -> None:
    registry, etl, other = FlowRegistry(), Flow("etl"), Flow("other")
    assert registry.register(etl).register_by_name("again", etl).register_by_name("b.v2", other) is registry
    assert (registry.get("etl"), registry.get_by_name("again"), registry.get("b.v2")) == (etl, etl, other)
    assert (registry.list_flows(), list(registry), len(registry)) == (["again", "b.v2", "etl"],) * 2 + (3,)
    assert ("etl" in registry, "x" in registry, None in registry) == (True, False, False)
    assert (registry.unregister("etl"), registry.list_flows()) == (etl, ["again", "b.v2"])
    registry.clear()
    assert registry.list_flows() == []


def test_the_same_flow_can_be_registered_again_and_another_only_on_purpose() -> None:
    registry, flow, other = FlowRegistry(), Flow("etl"), Flow("etl")
    registry.register(flow).register(flow)
    refusal(
        lambda: registry.register(other), DuplicateNameError, "'etl'", "unregister('etl')", "replace=True"
    )
    assert registry.get("etl") is flow
    assert registry.register(other, replace=True).get("etl") is other


REFUSED: list[tuple[Callable[[FlowRegistry], object], type[RoutiluxError], tuple[str, ...]]] = [
    (
        lambda r: r.get("elt"),
        UnknownFlowError,
        ("no flow 'elt' in the registry", "'etl'", "register_by_name('elt', flow)"),
    ),
    (lambda r: r.unregister("elt"), UnknownFlowError, ("no flow 'elt'",)),
    (lambda r: r.get(3), UnknownFlowError, ("no flow 3",)),
    (lambda r: r.register("etl"), InvalidTypeError, ("a Flow", "'etl' (str)")),
    (lambda r: r.register_by_name("x", Flow), InvalidTypeError, ("flow to register as 'x'",)),
    (lambda r: r.register_by_name("", Flow()), InvalidValueError, ("name of a flow",)),
    (lambda r: r.register_by_name(None, Flow()), InvalidTypeError, ("name of a flow",)),
]


@table(("action", "error", "fragments"), REFUSED)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    action: Callable[[FlowRegistry], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    registry = FlowRegistry().register(Flow("etl"))
    refusal(lambda: action(registry), error, *fragments)
    assert registry.list_flows() == ["etl"]


def test_there_is_one_default_and_any_number_of_others() -> None:
    assert FlowRegistry.get_instance() is FlowRegistry.get_instance() is PublicFlowRegistry.get_instance()
    assert FlowRegistry() is not FlowRegistry.get_instance()
