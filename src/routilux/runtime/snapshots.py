"""Files of saved states: readable JSON with a version and a checksum.

::

    {
      "format": "routilux-state",
      "version": 1,
      "checksum": "<BLAKE2b of the body, in hex>",
      "body": {"kind": "worker", "worker_id": "orders", ...}
    }

The checksum is over the body in its canonical form: on one line, no spaces, keys in their order, as UTF-8. So
an editor may change the spaces, and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NoReturn

from routilux.errors import SerializationError, shown
from routilux.model.status import ExecutionStatus, WorkerStatus
from routilux.ports import load

FORMAT = "routilux-state"
VERSION = 1

_STATUSES = {
    "worker": {status.value for status in WorkerStatus},
    "execution": {status.value for status in ExecutionStatus},
}
_BODY: dict[str, type] = {
    "kind": str,
    "worker_id": str,
    "flow_id": str,
    "fingerprint": str,
    "status": str,
    "routine_states": dict,
    "shared_data": dict,
    "shared_log": list,
    "output_log": list,
    "history": list,
    "jobs": list,
    "mailboxes": dict,
    "dead_letters": list,
    "next_number": int,
}
_ROWS: dict[str, type] = {
    "routine_states": dict,
    "output_log": list,
    "history": list,
    "jobs": dict,
    "mailboxes": dict,
    "dead_letters": list,
}


def write(path: str | os.PathLike[str], body: Mapping[str, Any]) -> None:
    """:func:`encoded`, and then :func:`replace`."""
    replace(path, encoded(body))


def encoded(body: Mapping[str, Any]) -> bytes:
    """What a file with this body holds. Raises SerializationError for a value that has no JSON form."""
    where = f"state of worker {shown(body.get('worker_id'))}"
    _check_body(where, body, "this is a bug of Routilux, please report it")
    inner: bytes = load("codec")(indent=2).encode(dict(body), where)
    checksum = _checksum(_canonical(json.loads(inner)))
    head = f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n  "checksum": "{checksum}",\n  "body": '
    indented = inner.replace(b"\n", b"\n  ")  # text in JSON has no line ends of its own
    return head.encode() + indented + b"\n}\n"


def replace(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file atomically: after a crash it is the old one or the new one, and on disk. Raises OSError."""
    name = os.fspath(path)
    new = f"{name}.{os.urandom(6).hex()}.tmp"
    try:
        with open(new, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, name)
    except BaseException:
        _remove(new)
        raise
    _sync_folder(os.path.dirname(name) or ".")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The body that was written: all of it, or SerializationError. FileNotFoundError if there is no file."""
    name = os.fspath(path)
    with open(name, "rb") as file:
        document = _parsed(name, file.read())
    canonical = _checked(name, document)
    body: dict[str, Any] = load("codec")().decode(canonical, f"state file {name!r}, body")
    _check_body(f"state file {name!r}", body, "use an older copy")
    return body


# -- the file ------------------------------------------------------------------------------------------------


def _remove(name: str) -> None:
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass


def _sync_folder(folder: str) -> None:
    """Make the rename last. Windows cannot open a folder, and renames durably by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- the envelope --------------------------------------------------------------------------------------------


def _canonical(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _checksum(canonical: bytes) -> str:
    return blake2b(canonical, digest_size=32).hexdigest()


def _parsed(name: str, data: bytes) -> Any:
    if not data.strip():
        _refuse(name, "$", "is empty", "the write was cut off; use an older copy")
    try:
        return json.loads(data.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        what = f"is cut off after {len(data)} bytes" if _is_cut(error) else f"is not JSON ({error})"
        _refuse(name, "$", what, "give a whole file that save() wrote", error)


def _is_cut(error: Exception) -> bool:
    """Whether the reader missed something at the very end, or met a value or an escape that is not whole."""
    if isinstance(error, json.JSONDecodeError):
        left = len(error.doc.rstrip()) - error.pos
        unfinished = left < len("\\u0000") and error.doc.startswith("{") and not error.doc.endswith("}")
        return left <= 0 or unfinished or error.msg.startswith("Unterminated string")
    return isinstance(error, UnicodeDecodeError) and error.end == len(error.object)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _checked(name: str, document: Any) -> bytes:
    """The canonical body of an envelope that is as it was written."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        what = document.get("format") if isinstance(document, dict) else document
        _refuse(name, "$.format", f"is no saved state: {shown(what)}", "give a file that save() wrote")
    version = document.get("version")
    if type(version) is not int or version < 1:
        _refuse(name, "$.version", f"has no valid version: {shown(version)}", "use an older copy")
    if version > VERSION:
        what = f"was written by a newer Routilux: version {version}, this one reads up to {VERSION}"
        _refuse(name, "$.version", what, "upgrade Routilux")
    for key in ("checksum", "body"):
        if key not in document:
            _refuse(name, f"$.{key}", f"has no {key}", "use an older copy")
    try:
        canonical = _canonical(document["body"])
    except (ValueError, RecursionError) as error:
        _refuse(name, "$.body", f"has a body that was never written ({error})", "use an older copy", error)
    if document["checksum"] != _checksum(canonical):
        what = "was changed after it was written: the checksum is wrong"
        _refuse(name, "$.checksum", what, "use an unchanged copy; states cannot be edited by hand")
    return canonical


# -- the body ------------------------------------------------------------------------------------------------


def _check_body(where: str, body: Any, fix: str) -> None:
    """That it has everything that a worker is made from, in the right shape."""

    def expect(fits: bool, path: str, expected: str, found: Any) -> None:
        if not fits:
            what = f"{where} at {path}: expected {expected}, found {shown(found)}; {fix}"
            raise SerializationError(what, path=path)

    expect(isinstance(body, Mapping), "$.body", "an object", body)
    for key, kind in _BODY.items():
        path = f"$.body.{key}"
        expect(key in body, path, kind.__name__, None)
        expect(
            isinstance(body[key], kind) and not isinstance(body[key], bool), path, kind.__name__, body[key]
        )
    for key, kind in _ROWS.items():
        rows = body[key].items() if isinstance(body[key], dict) else enumerate(body[key])
        for at, row in rows:
            expect(isinstance(row, kind), f"$.body.{key}[{at!r}]", kind.__name__, row)
    kinds, statuses = sorted(_STATUSES), _STATUSES.get(body["kind"], ())
    expect(body["kind"] in kinds, "$.body.kind", f"one of {kinds}", body["kind"])
    expect(body["status"] in statuses, "$.body.status", f"one of {sorted(statuses)}", body["status"])


def _refuse(name: str, path: str, what: str, fix: str, cause: BaseException | None = None) -> NoReturn:
    raise SerializationError(f"state file {name!r} {what} (at {path}); {fix}", path=path) from cause
