"""Doing: threads, timers, the event loop, and what users hold in their hands while a flow runs."""

from routilux.runtime.early import EarlyStyle
from routilux.runtime.posting import Posted
from routilux.runtime.runtime import Runtime

__all__ = ["EarlyStyle", "Posted", "Runtime"]
