"""What the writers write, the readers read: any rows of text and numbers, in any encoding of characters."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from routilux.routines import ReadCsv, ReadJsonl, WriteCsv, WriteJsonl
from tests.unit.routines.running import emitted, only

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [
        "",
        " ",
        "\r",
        "\n",
        "\r\n",
        '"',
        '""',
        ",",
        ";",
        "\ufeff",
        "\u2028",
        "\x00",
        "a\rb",
        "007",
        "1",
        "-0",
        "é",
    ]
)
# A byte order mark at the very beginning of a file is none of its data.
names = st.lists(
    texts.filter(lambda text: text[:1] not in ("", "\ufeff")), min_size=1, max_size=4, unique=True
)


def there_and_back(writer: Any, reader: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "rows"))
        assert only("error", emitted(writer.set_config(path=path), rows)) == []
        found = emitted(reader.set_config(path=path), [{}], slot="path")
        assert only("error", found) == []
        assert only("done", found) == [{"path": path, "count": len(rows), "errors": 0}]
        return only("row", found)


@given(st.data(), names, st.sampled_from([",", ";", "\t"]))
@settings(max_examples=60)
def test_text_in_csv(data: st.DataObject, columns: list[str], delimiter: str) -> None:
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, texts)), min_size=1, max_size=4))
    writer = WriteCsv().set_config(delimiter=delimiter)
    reader = ReadCsv().set_config(delimiter=delimiter, numbers=False)
    assert there_and_back(writer, reader, rows) == rows


@given(
    st.lists(
        st.dictionaries(texts, texts | st.integers() | st.booleans() | st.none()), min_size=1, max_size=4
    )
)
@settings(max_examples=40)
def test_payloads_in_json_lines(rows: list[dict[str, Any]]) -> None:
    assert there_and_back(WriteJsonl(), ReadJsonl(), rows) == rows


@given(
    st.lists(st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False), min_size=1)
)
@settings(max_examples=40)
def test_numbers_in_csv_stay_numbers(numbers: list[float]) -> None:
    rows = [{"n": number} for number in numbers]
    assert there_and_back(WriteCsv(), ReadCsv(), rows) == rows
