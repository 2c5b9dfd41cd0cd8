"""``routilux list``: what can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from routilux import ConfigurationError, DslError, Flow, FlowRegistry, Routine, RoutineRegistry
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import documents_in, import_modules
from routilux.cli.screen import print_json, print_pairs, print_table, write, write_folded
from routilux.errors import describe
from routilux.model.config import ConfigField, declared_fields, type_label

EXAMPLES = """
routilux list routines
routilux list routines read_csv reduce
routilux list flows --json
"""


@command("list", EXAMPLES)
@click.argument("kind", type=click.Choice(["routines", "flows"]))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@import_option
def listing(call: Call, kind: str, names: tuple[str, ...], modules: tuple[str, ...]) -> None:
    """List routines, or the flows that are in this folder or that imported modules register.

    With names of routines, list their slots, events and config.
    """
    allowed = (*call.settings.modules, *modules)
    import_modules(allowed)
    if kind == "flows":
        if names:
            raise click.UsageError(
                "'routilux list flows' takes no names; 'routilux validate FLOW' looks at one"
            )
        _show_flows(call, [*_documents(allowed), *_registered()])
    elif names:
        _show_details(call, [_details(name) for name in names])
    else:
        _show_routines(call, [_summary(name) for name in RoutineRegistry.get_instance().names()])


# -- routines ----------------------------------------------------------------------------------------------


def _summary(name: str) -> dict[str, Any]:
    """A plugin that cannot be imported is listed with the reason."""
    try:
        kind = RoutineRegistry.get_instance().get(name)
    except ConfigurationError as error:
        return {"name": name, "description": "", "error": str(error)}
    return {"name": name, "description": _plain(kind.description)}


def _details(name: str) -> dict[str, Any]:
    kind = RoutineRegistry.get_instance().get(name)
    made = kind.create()
    fields = declared_fields(kind.routine_class)
    return {
        "name": name,
        "description": _plain(kind.description),
        "slots": list(made.slots),
        "events": list(made.events),
        "policy": _policy_of(made),
        "config": None if fields is None else [_field(field) for field in fields],
    }


def _policy_of(routine: Routine) -> str | None:
    return None if routine.activation_policy is None else repr(routine.activation_policy)


def _field(field: ConfigField) -> dict[str, Any]:
    default = {} if field.required else {"default": field.default}
    return {
        "key": field.name,
        "type": "expression" if field.expression else type_label(field.type),
        "required": field.required,
        **default,
        "meaning": field.doc,
    }


def _show_routines(call: Call, routines: list[dict[str, Any]]) -> None:
    if call.as_json:
        print_json(routines)
        return
    print_table(
        [
            {"routine": each["name"], "what it does": each.get("error") or each["description"]}
            for each in routines
        ]
    )
    call.say("\n'routilux list routines NAME' shows slots, events and config.")


def _show_details(call: Call, routines: list[dict[str, Any]]) -> None:
    if call.as_json:
        print_json(routines)
        return
    for number, each in enumerate(routines):
        write("\n" if number else "")
        write_folded(f"{each['name']}: {each['description']}")
        write("\n")
        print_pairs([("slots", ", ".join(each["slots"])), ("events", ", ".join(each["events"]))])
        if each["config"]:
            write("\n")
            print_table([_row_of_field(field) for field in each["config"]])


def _row_of_field(field: dict[str, Any]) -> dict[str, Any]:
    default = "required" if field["required"] else field["default"]
    return {"config": field["key"], "type": field["type"], "default": default, "meaning": field["meaning"]}


def _plain(text: str) -> str:
    """A line of a docstring without its marks for code."""
    return text.replace("``", "")


# -- flows -------------------------------------------------------------------------------------------------


def _documents(allowed: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_document(path, allowed) for path in documents_in(Path())]


def _document(path: Path, allowed: tuple[str, ...]) -> dict[str, Any]:
    try:
        return _row_of_flow(str(path), Flow.load(path, allow_imports=allowed))
    except DslError as error:
        count = len(error.problems)
        return {"flow": str(path), "flow_id": None, "routines": None, "description": "", "problems": count}
    except ConfigurationError as error:
        return {"flow": str(path), "flow_id": None, "routines": None, "description": describe(error)}


def _registered() -> list[dict[str, Any]]:
    registry = FlowRegistry.get_instance()
    return [_row_of_flow(name, registry.get(name)) for name in registry.list_flows()]


def _row_of_flow(name: str, flow: Flow) -> dict[str, Any]:
    count = len(flow.routines)
    return {"flow": name, "flow_id": flow.flow_id, "routines": count, "description": flow.description()}


def _show_flows(call: Call, flows: list[dict[str, Any]]) -> None:
    if call.as_json:
        print_json(flows)
    elif flows:
        print_table(flows)
        if any(flow.get("problems") for flow in flows):
            call.say("\n'routilux validate FLOW' shows the problems.")
    else:
        call.say("No *.flow.yaml and *.flow.json here or below; 'routilux init' writes one.")
