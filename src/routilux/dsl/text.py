"""The text of a document before it is parsed: size, encoding, characters and line ends."""

from __future__ import annotations

import re
from typing import Final

from routilux.dsl.nodes import MAX_BYTES
from routilux.dsl.problems import Place, Report
from routilux.errors import InvalidTypeError, refused

_REFUSED: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)


def checked_text(given: str | bytes, file: str) -> tuple[str, Report]:
    """The text, and the report for what is found in it; ``DslError`` if it cannot be parsed at all."""
    if not isinstance(given, (str, bytes)):
        raise refused(InvalidTypeError, "document", given, "text or bytes")
    if len(given) > MAX_BYTES:
        raise _too_large(file)
    if isinstance(given, bytes):
        text = _decoded(given, file)
    else:
        text = given
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise _too_large(file)
    report = Report(text, file)
    _check_characters(text, report)
    _check_line_ends(text, report)
    report.raise_if_any()
    return text, report


def place_of(text: str, index: int) -> Place:
    line = text.count("\n", 0, index) + 1
    return Place(line, index - text.rfind("\n", 0, index))


def _too_large(file: str) -> Exception:
    report = Report("", file)
    limit = f"{MAX_BYTES // 1024} KiB"
    report.add("too-large", Place(1, 1), "", f"more than {limit} of text", "split it into several flows")
    return report.error()


def _decoded(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        report = Report(data.decode("utf-8", "replace"), file)
        byte = f"byte 0x{data[error.start]:02x} is no UTF-8"
        report.add("bad-encoding", place_of(before, len(before)), "", byte, "save the file as UTF-8")
        raise report.error() from None


def _check_characters(text: str, report: Report) -> None:
    found = _REFUSED.search(text)
    if found is None:
        return
    name = f"U+{ord(found[0]):04X}"
    if found[0] == "\ufeff":
        message, fix = f"a byte order mark ({name})", "save the file as UTF-8 without it"
    else:
        message, fix = f"the character {name} is not allowed", "remove it, or write it as an escape in quotes"
    report.add("bad-character", place_of(text, found.start()), "", message, fix)


def _check_line_ends(text: str, report: Report) -> None:
    if "\r" not in text:
        return
    lone = re.search(r"\r(?!\n)", text)
    plain = re.search(r"(?<!\r)\n", text)
    odd = lone or (plain and re.search(r"\r\n", text) and plain)
    if odd:
        message = "mixed line ends: this one is not CR LF as others are"
        report.add("mixed-line-ends", place_of(text, odd.start()), "", message, "save it with LF only")
