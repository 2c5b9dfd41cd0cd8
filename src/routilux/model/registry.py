"""Flows by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from routilux.errors import DuplicateNameError, InvalidTypeError, refused, shown, unknown
from routilux.model.checks import checked_flag
from routilux.model.flow import Flow
from routilux.model.names import checked_name


class FlowRegistry:
    """Where a runtime looks up the names of flows. Safe from any thread: every method is one step on a dict.

    :meth:`get_instance` is a convenience; a registry of your own does as well: ``Runtime(registry=...)``.
    """

    def __init__(self) -> None:
        self._flows: dict[str, Flow] = {}

    @classmethod
    def get_instance(cls) -> FlowRegistry:
        """The registry that is used where none is given; always the same one."""
        return _default

    def register(self, flow: Flow, *, replace: bool = False) -> Self:
        """Register a flow under its ``flow_id``."""
        return self.register_by_name(
            flow.flow_id if isinstance(flow, Flow) else "flow", flow, replace=replace
        )

    def register_by_name(self, name: str, flow: Flow, *, replace: bool = False) -> Self:
        """Register a flow under a name; again for the same flow does nothing.

        Another flow under a taken name raises ``DuplicateNameError``, unless ``replace`` is true.
        """
        if not isinstance(flow, Flow):
            raise refused(InvalidTypeError, f"flow to register as {name!r}", flow, "a Flow")
        checked_name("flow", name, dots=True)
        checked_flag("register(replace)", replace)
        if replace:
            self._flows[name] = flow
        elif self._flows.setdefault(name, flow) is not flow:
            raise DuplicateNameError(
                f"another flow is registered as {name!r} already; choose another name, "
                f"unregister({name!r}) first, or give replace=True",
                flow_id=name,
                known=tuple(self._flows),
            )
        return self

    def get(self, name: str) -> Flow:
        """The flow of that name; ``UnknownFlowError`` naming the nearest ones if there is none."""
        flow = self._flows.get(name) if isinstance(name, str) else None
        if flow is None:
            raise self._unknown(name)
        return flow

    get_by_name = get

    def list_flows(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._flows)

    def unregister(self, name: str) -> Flow:
        """Forget a name; return its flow. Workers of the flow go on."""
        flow = self._flows.pop(name, None) if isinstance(name, str) else None
        if flow is None:
            raise self._unknown(name)
        return flow

    def clear(self) -> None:
        self._flows.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._flows

    def __iter__(self) -> Iterator[str]:
        return iter(self.list_flows())

    def __len__(self) -> int:
        return len(self._flows)

    def __repr__(self) -> str:
        return f"<FlowRegistry {self.list_flows()!r}>"

    def _unknown(self, name: object) -> Exception:
        fix = f"register it: FlowRegistry.get_instance().register_by_name({shown(name)}, flow)"
        return unknown("flow", name, list(self._flows), where="in the registry", fix=fix, flow_id=name)


_default = FlowRegistry()
