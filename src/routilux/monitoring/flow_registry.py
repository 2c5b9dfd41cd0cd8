"""The registry of flows; the code is in ``routilux.model.registry``."""

from routilux.model.registry import FlowRegistry

__all__ = ["FlowRegistry"]
