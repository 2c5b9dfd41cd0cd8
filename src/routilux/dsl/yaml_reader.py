"""YAML 1.2 with the core schema, from PyYAML's events: nothing is composed or constructed by PyYAML.

The schema is this module's: ``yes``, ``on``, ``1:30`` and dates are text, ``0o17`` is a number.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from routilux.dsl.nodes import Bad, Node, Tree
from routilux.dsl.problems import Place, Report, value

_NULLS: Final = frozenset(["null", "Null", "NULL", "~", ""])
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ENDLESS: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CORE: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = ("str", "int", "float", "bool", "null")
_MOST_DIGITS: Final = 400  # of a number; longer ones are out of every range, and dear to convert

_loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str, report: Report) -> Node:
    """The tree of a text; ``DslError`` if there is none. What can wait is in the report."""
    tree = Tree(report)
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_loader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                _check_start(event, documents, tree)
            else:
                _take(event, tree)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, report) from None
    except yaml.YAMLError as error:
        report.add("yaml-syntax", Place(1, 1), "", str(error).splitlines()[0])
        raise report.error() from None
    return tree.root or Node(None, Place(1, 1), ())


def resolved(text: str) -> Any:
    """What an unquoted text is in the core schema; ``Bad`` for a number that is too long to be one."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) > _MOST_DIGITS and (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)):
        return Bad()
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _ENDLESS.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _take(event: Any, tree: Tree) -> None:
    if isinstance(event, yaml.AliasEvent):
        message = f"alias {value(event.anchor)}: anchors and aliases are not allowed"
        tree.problem("alias", _place(event), message, "write the value out")
        tree.scalar(Bad(), _place(event))
        return
    if getattr(event, "anchor", None) is not None:
        message = f"anchor {value(event.anchor)}: anchors and aliases are not allowed"
        tree.problem("anchor", _place(event), message, "write the value out where it is needed")
    if isinstance(event, yaml.ScalarEvent):
        tree.scalar(_scalar(event, tree), _place(event))
    elif isinstance(event, yaml.MappingStartEvent):
        _check_tag(event, ("map",), tree)
        tree.open(dict, _place(event))
    elif isinstance(event, yaml.SequenceStartEvent):
        _check_tag(event, ("seq",), tree)
        tree.open(list, _place(event))
    elif isinstance(event, yaml.CollectionEndEvent):
        tree.close()


def _scalar(event: Any, tree: Tree) -> Any:
    plain = event.implicit[0] and event.tag is None
    text: str = event.value
    if not plain:
        return _tagged(event, text, tree) if event.tag not in (None, "!") else text
    if text == "<<":
        fix = "write the entries out"
        tree.problem("merge-key", _place(event), "merge keys are not allowed", fix)
        return Bad()
    data = resolved(text)
    if isinstance(data, Bad):
        tree.problem("number-out-of-range", _place(event), f"number out of range: {value(text)}", "quote it")
    return data


def _tagged(event: Any, text: str, tree: Tree) -> Any:
    if not _check_tag(event, _SCALAR_TAGS, tree):
        return Bad()
    name = event.tag.removeprefix(_CORE)
    data = text if name == "str" else resolved(text)
    if name == "float" and type(data) is int:
        data = float(data)
    if isinstance(data, Bad) or name != _tag_of(data):
        tree.problem("bad-tag", _place(event), f"{value(text)} is no {name}", "correct it, or remove the tag")
        return Bad()
    return data


def _tag_of(data: object) -> str:
    return "null" if data is None else type(data).__name__


def _check_tag(event: Any, allowed: tuple[str, ...], tree: Tree) -> bool:
    if event.tag in (None, "!") or event.tag in [_CORE + name for name in allowed]:
        return True
    tag = event.tag.replace(_CORE, "!!")
    fix = "remove it: only map, list, str, int, float, bool and null exist, and are known without a tag"
    tree.problem("tag", _place(event), f"tag {value(tag)} is not allowed", fix)
    return False


def _check_start(event: Any, number: int, tree: Tree) -> None:
    if number > 1:
        fix = "put each flow into a file of its own"
        tree.stop("several-documents", _place(event), "a second document in one text", fix)
    if event.version is not None and tuple(event.version) != (1, 2):
        version = ".".join(map(str, event.version))
        tree.problem(
            "directive", _place(event), f"%YAML {version} is not allowed", "remove it: it is YAML 1.2"
        )
    if event.tags:
        tree.problem("directive", _place(event), "%TAG is not allowed", "remove it")


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _syntax_error(error: yaml.MarkedYAMLError, report: Report) -> Exception:
    mark = error.problem_mark or error.context_mark
    place = Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)
    message = " ".join(filter(None, [str(error.problem or "no YAML"), str(error.context or "")]))
    report.add("yaml-syntax", place, "", message, _hint(message))
    return report.error()


def _hint(message: str) -> str:
    if "character that cannot start any token" in message:
        return "quote text that begins with @, ` or %, and indent with spaces, never with tabs"
    if "mapping values are not allowed" in message:
        return "quote text that has ': ' in it"
    if "quoted scalar" in message:
        return "close the quote"
    if "directive" in message:
        return "remove it: no directive but %YAML 1.2 is allowed"
    return ""
