"""Faults planted in the engine, to see that a proof catches them.

A fault is a textual change of one function. It must fit exactly once, so a fault that no longer applies fails
loudly instead of passing for the wrong reason. Nothing in the package knows of them.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Change(NamedTuple):
    """``old`` becomes ``new`` in a function of a class or module."""

    where: Any
    function: str
    old: str
    new: str


@contextmanager
def planted(fault: Change) -> Iterator[None]:
    original = getattr(fault.where, fault.function)
    indented = inspect.getsource(original)
    indent = indented[: len(indented) - len(indented.lstrip())]
    source = textwrap.dedent(indented)
    fragment = _outdented(fault.old, indent)
    assert source.count(fragment) == 1, f"the fault no longer fits {fault.function}: {fragment!r}"
    changed = source.replace(fragment, _outdented(fault.new, indent))
    module = sys.modules[original.__module__]
    names: dict[str, Any] = {}
    exec(
        compile("from __future__ import annotations\n" + changed, module.__file__ or "", "exec"),
        vars(module),
        names,
    )
    setattr(fault.where, fault.function, names[fault.function])
    try:
        yield
    finally:
        setattr(fault.where, fault.function, original)


def _outdented(fragment: str, indent: str) -> str:
    """The fragment as it stands in the source of the function alone."""
    return "\n".join(line.removeprefix(indent) for line in fragment.split("\n"))
