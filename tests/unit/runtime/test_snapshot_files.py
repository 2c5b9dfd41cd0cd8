"""Files of saved states: what is written, what is refused, and what a failing write leaves behind."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux.errors import SerializationError
from routilux.runtime import snapshots

BODY = {
    "kind": "worker",
    "worker_id": "orders",
    "flow_id": "etl",
    "fingerprint": "f00d",
    "status": "paused",
    "routine_states": {"parse": {"seen": {1, 2}}},
    "shared_data": {"rate": 0.1, "größe": "ü\n\u2028", 7: (None,)},
    "shared_log": [{"at": 1e22}],
    "output_log": [[1.5, "job", "parse", "row", {}]],
    "history": [],
    "jobs": [{"job_id": "job"}],
    "mailboxes": {"parse": {"items": []}},
    "dead_letters": [],
    "next_number": 17,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.json"


def refusal(path):
    with pytest.raises(SerializationError) as caught:
        snapshots.read(path)
    assert caught.value.path is not None
    assert f"state file {str(path)!r}" in str(caught.value)
    return caught.value


def forged(**changes):
    """A file with a right checksum around a changed body: what only somebody who wants to can make."""
    body = {**json.loads(json.dumps({**BODY, "shared_data": {}, "routine_states": {}})), **changes}
    return envelope({key: value for key, value in body.items() if value is not ...})


def envelope(body, /, **changes):
    canonical = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    checksum = blake2b(canonical, digest_size=32).hexdigest()
    document = {"format": "routilux-state", "version": 1, "checksum": checksum, "body": body, **changes}
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


# -- writing -------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(path):
    snapshots.write(path, BODY)
    assert snapshots.read(path) == BODY
    assert repr(snapshots.read(str(path))) == repr(BODY)


def test_the_file_is_readable_json(path):
    snapshots.write(path, BODY)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[:3] == ["{", '  "format": "routilux-state",', '  "version": 1,']
    assert lines[3].startswith('  "checksum": "')
    assert lines[4:7] == ['  "body": {', '    "kind": "worker",', '    "worker_id": "orders",']
    assert lines[-2:] == ["  }", "}"]
    document = json.loads(text)
    assert list(document) == ["format", "version", "checksum", "body"]
    assert document["body"]["flow_id"] == "etl"


def test_an_editor_may_change_the_spaces(path):
    snapshots.write(path, BODY)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert snapshots.read(path) == BODY


def test_the_folder_holds_the_file_and_nothing_else(path):
    for number in range(3):
        snapshots.write(path, {**BODY, "next_number": number})
    assert os.listdir(path.parent) == ["state.json"]
    assert snapshots.read(path)["next_number"] == 2


def test_a_path_without_a_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    snapshots.write("state.json", BODY)
    assert snapshots.read("state.json") == BODY


def test_a_missing_folder_is_not_made(path):
    with pytest.raises(FileNotFoundError):
        snapshots.write(path.parent / "no" / "state.json", BODY)
    assert os.listdir(path.parent) == []


def test_order_of_the_steps_to_the_disk(path, monkeypatch):
    """New file, its fsync, the rename, the fsync of the folder: any other order can lose both files."""
    steps = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def noted_replace(old, new):
        steps.append("rename")
        assert Path(new) == path
        assert Path(old).parent == path.parent
        assert json.loads(Path(old).read_text())["body"]["worker_id"] == "orders"
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    snapshots.write(path, BODY)
    assert steps == ["file", "rename", "folder"]


def test_a_value_without_a_form_touches_no_file(path, monkeypatch):
    snapshots.write(path, BODY)
    old = path.read_bytes()
    monkeypatch.setattr("builtins.open", None)
    with pytest.raises(SerializationError) as caught:
        snapshots.write(path, {**BODY, "mailboxes": {"parse": {"items": [{"data": {"client": object()}}]}}})
    assert caught.value.path == "$.mailboxes.parse.items[0].data.client"
    assert str(caught.value).startswith(
        "state of worker 'orders' at $.mailboxes.parse.items[0].data.client: "
    )
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == ["state.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failing_write_leaves_the_old_file(path, monkeypatch, step, error):
    snapshots.write(path, BODY)
    old = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        snapshots.write(path, {**BODY, "next_number": 18})
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == ["state.json"]


def test_a_disk_that_is_full_in_the_middle(path, monkeypatch):
    snapshots.write(path, BODY)
    real = open

    def small(name, mode):
        file = real(name, mode)
        write = file.write

        class Small:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                write(data[: len(data) // 2])
                raise OSError(28, "No space left on device")

        return Small()

    monkeypatch.setattr("builtins.open", small)
    with pytest.raises(OSError, match="No space left"):
        snapshots.write(path, {**BODY, "next_number": 18})
    monkeypatch.undo()
    assert os.listdir(path.parent) == ["state.json"]
    assert snapshots.read(path) == BODY


def test_a_body_that_could_not_be_read_is_not_written(path):
    with pytest.raises(SerializationError, match=r"at \$\.body\.jobs: expected list, found None"):
        snapshots.write(path, {key: value for key, value in BODY.items() if key != "jobs"})
    assert os.listdir(path.parent) == []


# -- bad files -----------------------------------------------------------------------------------------------


def test_a_missing_file_is_missing(path):
    with pytest.raises(FileNotFoundError):
        snapshots.read(path)


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (b"", "$", "is empty"),
        (b" \n", "$", "is empty"),
        (b"hello", "$", "is not JSON"),
        (envelope(BODY["mailboxes"])[:-1], "$", "is cut off after"),
        (b'{"format": "rout', "$", "is cut off after 16 bytes (at $); give a whole file that save() wrote"),
        (b'{"text": "\xc3', "$", "is cut off after 11 bytes"),
        (b"{]}", "$", "is not JSON"),
        (b"\x80\x04K\x01}", "$", "is not JSON"),
        (b"\xef\xbb\xbf" + envelope({}), "$", "is not JSON"),
        (b'{"a": NaN}', "$", "NaN is no JSON"),
        (b"[" * 100_000 + b"}", "$", "is not JSON"),
        (b"[1]}", "$", "is not JSON"),
        (b'{"a":' + b"1" * 5_000 + b"}", "$", "is not JSON"),
        (b"{}", "$.format", "is no saved state: None"),
        (b'{"format": "other", "version": 1}', "$.format", "is no saved state: 'other' (at $.format); give"),
        (envelope({}, version=2), "$.version", "was written by a newer Routilux: version 2, this one reads up to 1"),
        (envelope({}, version=2, checksum=..., body=...), "$.version", "upgrade Routilux"),
        (envelope({}, version="1"), "$.version", "has no valid version: '1'"),
        (envelope({}, version=True), "$.version", "has no valid version: True"),
        (envelope({}, version=0), "$.version", "has no valid version: 0"),
        (envelope({}, version=...), "$.version", "has no valid version: None"),
        (envelope({}, body=...), "$.body", "has no body"),
        (envelope({}, checksum=...), "$.checksum", "has no checksum"),
        (envelope({}, checksum="0" * 64), "$.checksum", "was changed after it was written: the checksum is wrong"),
        (envelope({}, checksum=7), "$.checksum", "states cannot be edited by hand"),
        (envelope({"a": "X"}).replace(b'"X"', b'"\\ud800"'), "$.body", "has a body that was never written"),
        (envelope([]), "$.body", "expected an object, found []"),
        (envelope({}), "$.body.kind", "expected str, found None"),
        (forged(kind="other"), "$.body.kind", "expected one of ['execution', 'worker'], found 'other'"),
        (forged(status="flying"), "$.body.status", "expected one of ['failed', 'paused', 'running', 'starting',"),
        (forged(kind="execution", status="stopped"), "$.body.status", "found 'stopped'; use an older copy"),
        (forged(next_number=True), "$.body.next_number", "expected int, found True"),
        (forged(routine_states={"parse": 7}), "$.body.routine_states['parse']", "expected dict, found 7"),
        (forged(jobs=[{}, 7]), "$.body.jobs[1]", "expected dict, found 7"),
        (forged(output_log=[{}]), "$.body.output_log[0]", "expected list, found {}"),
        (forged(shared_data={"$type": "shop.Order", "value": 1}), "$.shared_data", "no type is registered as"),
        (forged(shared_data={"$type": "set", "value": []}), "$.body.shared_data", "expected dict, found set()"),
    ],
)  # fmt: skip
def test_a_bad_file_says_what_is_wrong_with_it(path, data, place, message):
    path.write_bytes(data)
    error = refusal(path)
    assert error.path == place
    assert message in str(error)


@pytest.mark.parametrize("key", BODY)
def test_every_part_of_the_body_is_needed(path, key):
    path.write_bytes(forged(**{key: ...}))
    assert refusal(path).path == f"$.body.{key}"
    path.write_bytes(forged(**{key: None}))
    assert refusal(path).path == f"$.body.{key}"


def test_the_forged_file_itself_is_fine(path):
    path.write_bytes(forged())
    assert snapshots.read(path)["worker_id"] == "orders"


def read_or_refuse(path, data, body):
    path.write_bytes(data)
    try:
        assert repr(snapshots.read(path)) == repr(body)
    except SerializationError as error:
        assert error.path is not None
        return True
    return False


def test_a_file_that_is_cut_anywhere(path):
    snapshots.write(path, BODY)
    data = path.read_bytes()
    refused = [read_or_refuse(path, data[:length], BODY) for length in range(len(data))]
    assert refused == [True] * (len(data) - 1) + [False]  # only the last line end does not matter


def test_a_file_with_any_bit_flipped(path):
    small = {**BODY, "shared_data": {"ü": 0.5}, "output_log": [], "history": []}
    snapshots.write(path, small)
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            read_or_refuse(path, bytes(flipped), small)


def test_a_file_with_any_byte_taken_out_or_doubled(path):
    snapshots.write(path, BODY)
    data = path.read_bytes()
    for at in range(len(data)):
        read_or_refuse(path, data[:at] + data[at + 1 :], BODY)
        read_or_refuse(path, data[:at] + data[at : at + 1] + data[at:], BODY)


@given(st.data())
def test_a_file_with_anything_written_over_it(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("overwritten") / "state.json"
    snapshots.write(path, BODY)
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    patch = data.draw(st.binary(max_size=20))
    read_or_refuse(path, content[:at] + patch + content[at + len(patch) :], BODY)
