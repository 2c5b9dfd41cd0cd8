"""``routilux validate``: everything that is wrong with flow documents."""

from __future__ import annotations

from typing import Any

import click

from routilux import ConfigurationError, DslError, Flow
from routilux.cli.codes import DONE, INVALID
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import flow_named, hint_for
from routilux.cli.screen import print_json, write_folded
from routilux.model.validation import Issue

EXAMPLES = """
routilux validate weather.flow.yaml
routilux validate flows/*.flow.yaml --json
"""


@command("validate", EXAMPLES)
@click.argument("flows", metavar="FLOW...", nargs=-1, required=True)
@import_option
def validate(call: Call, flows: tuple[str, ...], modules: tuple[str, ...]) -> int:
    """Check flow documents: all problems at once, each with its place and its fix.

    The exit code is 3 if a document has a problem. Warnings do not change it.
    """
    allowed = (*call.settings.modules, *modules)
    hints: list[str] = []
    verdicts = [_verdict(call, name, allowed, hints) for name in flows]
    if call.as_json:
        print_json(verdicts)
    for hint in filter(None, dict.fromkeys(hints)):
        call.say(hint)
    return DONE if all(verdict["valid"] for verdict in verdicts) else INVALID


def _verdict(call: Call, name: str, allowed: tuple[str, ...], hints: list[str]) -> dict[str, Any]:
    """What is found in one document, printed if it is for people."""
    try:
        flow = flow_named(name, allowed)
    except DslError as error:
        if not call.as_json:
            write_folded(str(error))
            hints.append(hint_for(error))
        return _answer(name, None, [problem._asdict() for problem in error.problems], [])
    except ConfigurationError as error:
        if not call.as_json:
            write_folded(f"{name}: {error}")
        return _answer(name, None, [{"code": "no-flow", "message": str(error)}], [])
    issues = flow.validate()
    errors = [issue for issue in issues if issue.severity == "error"]
    warnings = [issue for issue in issues if issue.severity != "error"]
    if not call.as_json:
        write_folded(_text(name, flow, errors, warnings))
    return _answer(name, flow, [each._asdict() for each in errors], [each._asdict() for each in warnings])


def _answer(name: str, flow: Flow | None, problems: list[Any], warnings: list[Any]) -> dict[str, Any]:
    flow_id = None if flow is None else flow.flow_id
    return {
        "flow": name,
        "flow_id": flow_id,
        "valid": not problems,
        "problems": problems,
        "warnings": warnings,
    }


def _text(name: str, flow: Flow, errors: list[Issue], warnings: list[Issue]) -> str:
    counts = f"{len(flow.routines)} routines, {len(flow.connections)} connections"
    verdict = f"{len(errors)} problems" if errors else "valid"
    lines = [f"{name}: {verdict}; flow {flow.flow_id!r}, {counts}"]
    lines += [f"  {issue.severity}: {issue}" for issue in (*errors, *warnings)]
    return "\n".join(lines)
