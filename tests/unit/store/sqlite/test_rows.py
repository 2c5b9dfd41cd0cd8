"""The checksum of a row is part of the format: every version of Python has to find the same."""

from enum import StrEnum

import pytest

from routilux.errors import StoreCorruptError
from routilux.ports import ItemRow
from routilux.store.sqlite.rows import opened, seal, sealed
from routilux.testing.store_rows import item_row

NEW_IN_UNICODE_16 = "\U0001fae9"  # no printable character for versions of Python that do not know it


class Status(StrEnum):
    RUNNING = "running"


def test_a_checksum_is_what_it_always_was():
    assert seal(("w", NEW_IN_UNICODE_16, 1, 0.1, None), b"x") == 2728615951


def test_a_member_of_an_enum_is_the_text_that_it_stands_for():
    assert seal((Status.RUNNING, 1)) == seal(("running", 1))


@pytest.mark.parametrize("field", range(8))
def test_a_change_of_any_field_is_noticed(field):
    row = list(sealed(item_row(1)))
    row[field] = {str: "other", int: 77, float: 0.5, bytes: b"other"}[type(row[field])]
    with pytest.raises(StoreCorruptError, match="its checksum does not fit"):
        opened(ItemRow, [row])


@pytest.mark.parametrize("data", ["{}", None, 7])
def test_a_blob_that_has_become_something_else_is_damage(data):
    with pytest.raises(StoreCorruptError):
        opened(ItemRow, [(*item_row(1)[:-1], data, 0)])
