"""The table in a routine's state: like a dict, and cheap to take over."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from routilux.routines.table import Table

actions = st.lists(
    st.tuples(st.sampled_from("put put get pop save".split()), st.integers(0, 400)), max_size=80
)


@given(actions)
@settings(max_examples=100)
def test_it_does_what_a_dict_does(steps: list[tuple[str, int]]) -> None:
    table, expected = Table(), dict[str, int]()
    for action, number in steps:
        key = f"ключ {number}"
        if action == "put":
            table.put(key, number)
            expected[key] = number
        elif action == "get":
            assert table.get(key, -1) == expected.get(key, -1)
        elif action == "pop" and key in expected:
            assert table.pop(key) == expected.pop(key)
        else:
            table = Table(table.as_state())
        assert sorted(table.values()) == sorted(expected.values())


def test_a_state_is_made_of_tuples_of_which_a_change_leaves_nearly_all_as_they_were() -> None:
    table = Table()
    for number in range(10_000):
        table.put(str(number), number)
        table = Table(table.as_state())
    before = table.as_state()
    table.put("7", "new")
    after = table.as_state()
    assert sum(one is not other for one, other in zip(before, after, strict=True)) == 1
    assert 256 <= len(after) <= 1024
    assert max(map(len, after)) < 60


def test_it_can_be_used_on_after_its_state_was_taken() -> None:
    table = Table()
    for number in range(3_000):
        table.put(str(number), number)
        table.as_state()
    assert [table.get(str(number)) for number in range(3_000)] == list(range(3_000))
    assert sorted(table.values()) == list(range(3_000))


def test_a_key_has_the_same_place_in_every_process() -> None:
    table = Table()
    table.put("ключ", 1)
    assert [number for number, bucket in enumerate(table.as_state()) if bucket] == [10]


def test_half_of_a_character_is_a_key_too() -> None:
    table = Table()
    table.put("\ud800", 1)
    assert Table(table.as_state()).get("\ud800") == 1
