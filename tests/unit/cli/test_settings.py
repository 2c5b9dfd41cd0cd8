"""The config: what goes before what, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from routilux import ConfigurationError
from routilux.cli.settings import Settings, read_settings

VALUES = {
    "threads": ("3", 3),
    "timeout": ("2.5", 2.5),
    "output": ("json", "json"),
    "store": ("sqlite:///x.db", "sqlite:///x.db"),
    "quiet": ("yes", True),
    "debug": ("0", False),
}


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def test_without_a_config_nothing_is_set(folder: Path) -> None:
    assert read_settings(folder, {}) == Settings()


@pytest.mark.parametrize("key", VALUES)
def test_every_key_has_a_variable(key: str, folder: Path) -> None:
    text, value = VALUES[key]
    variable = f"ROUTILUX_{key.upper()}"
    assert read_settings(folder, {variable: text}) == Settings(**{key: value}, sources={key: variable})


def test_the_environment_goes_before_routilux_toml_and_that_before_pyproject(folder: Path) -> None:
    write(folder, "pyproject.toml", "[tool.routilux]\nthreads = 1\ntimeout = 1\noutput = 'table'\n")
    write(folder, "routilux.toml", "threads = 2\ntimeout = 2\n")
    assert read_settings(folder, {"ROUTILUX_THREADS": "3"}) == Settings(
        threads=3,
        timeout=2.0,
        output="table",
        sources={
            "output": "[tool.routilux] of pyproject.toml",
            "timeout": "routilux.toml",
            "threads": "ROUTILUX_THREADS",
        },
    )


def test_modules_are_a_list_in_a_file_and_comma_separated_in_the_environment(folder: Path) -> None:
    write(folder, "routilux.toml", "[routines]\nmodules = ['one', 'two.three']\n")
    assert read_settings(folder, {}).modules == ("one", "two.three")
    assert read_settings(folder, {"ROUTILUX_IMPORT": "four, five"}).modules == ("four", "five")


def test_an_empty_variable_sets_nothing(folder: Path) -> None:
    assert read_settings(folder, {"ROUTILUX_THREADS": ""}) == Settings()


def test_unknown_keys_are_told_with_the_nearest_known_one(folder: Path) -> None:
    write(folder, "routilux.toml", "thread = 2\n[routines]\nmodule = []\n[other]\nx = 1\n")
    assert read_settings(folder, {}).warnings[:2] == (
        "routilux.toml: unknown key 'thread'; the nearest is 'threads'",
        "routilux.toml: unknown key 'routines.module'; the nearest is 'routines.modules'",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threads = 'x'", "threads in routilux.toml: expected a whole number of threads, got 'x' (str)"),
        ("threads = 0", "threads in routilux.toml: expected 1 to 1024 threads, got 0 (int)"),
        ("threads = true", "threads in routilux.toml: expected a whole number of threads, got True (bool)"),
        ("timeout = -1", "timeout in routilux.toml: expected more than 0 seconds, got -1 (int)"),
        ("output = 'xml'", "output in routilux.toml: expected one of table, json, jsonl, got 'xml' (str)"),
        ("quiet = 1", "quiet in routilux.toml: expected true or false, got 1 (int)"),
        (
            "[routines]\nmodules = 'x'",
            "routines.modules in routilux.toml: expected a list of modules, got 'x' (str)",
        ),
        ("threads =", "routilux.toml is no TOML: Invalid value"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(text: str, message: str, folder: Path) -> None:
    write(folder, "routilux.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        read_settings(folder, {})
    assert str(caught.value).startswith(message)


def test_a_wrong_variable_is_refused_by_its_name(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ROUTILUX_QUIET: expected true or false, got 'maybe'"):
        read_settings(folder, {"ROUTILUX_QUIET": "maybe"})


def test_a_file_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "routilux.toml").write_bytes(b"output = '\xff'")
    with pytest.raises(ConfigurationError, match=r"routilux\.toml is no TOML"):
        read_settings(folder, {})


def test_variables_that_mean_nothing_are_told(folder: Path) -> None:
    variables = {"ROUTILUX_STROE": "sqlite:///o.db", "ROUTILUX_THREADS": "1", "PATH": ""}
    assert read_settings(folder, variables).warnings == (
        "environment: ROUTILUX_STROE means nothing; the nearest is ROUTILUX_STORE",
    )
