"""``routilux schema``: the JSON Schema of flow documents."""

from __future__ import annotations

from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import import_modules
from routilux.cli.screen import print_json

EXAMPLES = """
routilux schema > flow.schema.json
"""


@command("schema", EXAMPLES)
@import_option
def schema(call: Call, modules: tuple[str, ...]) -> None:
    """Print the JSON Schema of flow documents, made from what is installed.

    An editor with a YAML language server completes and checks documents that begin with the line

    # yaml-language-server: $schema=flow.schema.json
    """
    from routilux.dsl import schema as schema_of_documents

    import_modules((*call.settings.modules, *modules))
    print_json(schema_of_documents())
