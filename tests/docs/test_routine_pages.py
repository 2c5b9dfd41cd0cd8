"""The pages about the built-in routines name every key and every event."""

from __future__ import annotations

import re

import pytest

from routilux.model.config import ConfigField, fields_of
from routilux.routines import BUILT_IN
from tests.docs.document import ROOT

PAGES = ROOT / "docs" / "reference" / "routines"


def sections() -> dict[str, str]:
    """By routine, the text under its heading."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.md"))
    parts = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_routine_has_a_section() -> None:
    assert sections().keys() == BUILT_IN.keys()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_section_names_what_there_is(name: str) -> None:
    kind, section = BUILT_IN[name], sections()[name]
    rows = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    keys = set(getattr(kind.config_type, "__dataclass_fields__", ()))
    assert keys <= rows
    assert set(kind().events) - {"default"} <= rows
    assert "```python" in section


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_section_says_what_the_code_says_about_each_key(name: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| (.+) \|$", sections()[name], re.MULTILINE)
    assert {key: (default, meaning) for key, default, meaning in rows} == {
        field.name: (shown_default(field), shown_meaning(field)) for field in fields_of(config_type(name))
    }


def config_type(name: str) -> type:
    return BUILT_IN[name].config_type  # type: ignore[attr-defined,no-any-return]


def shown_default(field: ConfigField) -> str:
    if field.required:
        return "required"
    match field.default:
        case None:
            return "none"
        case bool():
            return str(field.default).lower()
        case str() if field.default.isprintable():
            return f"`{field.default}`"
        case _:
            return f"`{field.default!r}`"


def shown_meaning(field: ConfigField) -> str:
    choices = f": {', '.join(f'`{choice}`' for choice in field.choices)}" if field.choices else ""
    return field.doc + choices + (" (expression)" if field.expression else "")
