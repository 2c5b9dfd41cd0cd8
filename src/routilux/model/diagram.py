"""A flow drawn as text: Mermaid and Graphviz. Names are escaped, whatever they contain."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from routilux.model.flow import Flow


def to_mermaid(flow: Flow) -> str:
    """A Mermaid flow chart, from left to right."""
    nodes, edges = _parts(flow, _mermaid_text)
    lines = [f"    {node}[{label}]" for node, label in nodes]
    lines += [f"    {source} -->|{label}| {target}" for source, target, label in edges]
    return "\n".join(["flowchart LR", *lines, ""])


def to_dot(flow: Flow) -> str:
    """A Graphviz digraph, from left to right."""
    nodes, edges = _parts(flow, _dot_text)
    lines = [f"    {node} [label={label}];" for node, label in nodes]
    lines += [f"    {source} -> {target} [label={label}];" for source, target, label in edges]
    name = _dot_text(flow.flow_id)
    return "\n".join([f"digraph {name} {{", "    rankdir=LR;", "    node [shape=box];", *lines, "}", ""])


def to_html(flow: Flow) -> str:
    """The Mermaid text, for a front end that cannot draw it."""
    from html import escape

    return f"<pre>{escape(to_mermaid(flow))}</pre>"


def _parts(
    flow: Flow, text: Callable[[str], str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """Nodes as (node, label) and edges as (source, target, label); node names are made up, labels escaped."""
    node = {routine_id: f"r{number}" for number, routine_id in enumerate(flow.routines)}
    nodes = [(node[routine_id], text(routine_id)) for routine_id in node]
    edges = []
    for source, event, target, slot in (connection.ends for connection in flow.connections):
        label = event if event == slot else f"{event} → {slot}"
        edges.append((node[source], node[target], text(label)))
    return nodes, edges


def _mermaid_text(text: str) -> str:
    """Quoted; everything that Mermaid could read as markup becomes a character code."""
    return '"' + re.sub(r"[^\w .,:→-]", lambda match: f"#{ord(match[0])};", text) + '"'


def _dot_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
