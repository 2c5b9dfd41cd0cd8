"""Routine types by name: registered, prototypes, and plugins that are really installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from routilux import Routine, routine
from routilux.dsl import ObjectFactory, RoutineRegistry
from routilux.errors import ConfigurationError, DuplicateNameError, InvalidTypeError, InvalidValueError
from tests.unit.dsl.samples import Read, registry, work


def test_classes_functions_factories_and_prototypes() -> None:
    own = registry().register(lambda: Read().set_config(path="made"), "factory", description="reads")
    assert type(own.create("read")) is Read
    assert own.get("read").description == "Reads a file."
    assert own.get("work").description == "Hands on what it gets."
    assert type(own.create("work")) is work
    assert own.create("factory").get_config("path") == "made"
    assert dict(own.create("read_small", path="x").config) == {"size": 5, "path": "x"}
    assert own.get("factory").description == "reads"
    assert {"read", "work", "factory", "read_small", "branch"} <= set(own)
    assert own.name_of(own.create("read_small")) == "read_small"
    assert own.name_of(Read()) == "read"
    assert own.name_of(Routine()) is None
    assert ObjectFactory is RoutineRegistry
    assert RoutineRegistry.get_instance() is RoutineRegistry.get_instance()


def test_as_a_decorator() -> None:
    own = RoutineRegistry(plugins=False)

    @own.routine("tidy", description="tidies")
    @routine
    def clean(**payload: Any) -> dict[str, Any]:
        return payload

    assert type(own.create("tidy")) is clean


def test_a_name_is_given_once() -> None:
    own = registry()
    for register in (
        lambda: own.register(work, "read"),
        lambda: own.register_prototype("read", "work"),
        lambda: own.register(work, "branch"),
    ):
        with pytest.raises(DuplicateNameError, match="exists already"):
            register()
    for name in ("immediate", "other"):
        with pytest.raises(DuplicateNameError):
            own.register_policy("other", lambda: None).register_policy(name, lambda: None)  # type: ignore[arg-type,return-value]
    assert type(own.unregister("read").register(work, "read").create("read")) is work


def test_an_unknown_name_comes_with_the_nearest() -> None:
    own = registry()
    with pytest.raises(
        InvalidValueError, match=r"no routine type 'raed' in the registry; .*'read'"
    ) as caught:
        own.create("raed")
    assert "register it" in str(caught.value)
    with pytest.raises(InvalidValueError):
        own.unregister("raed")
    with pytest.raises(InvalidValueError, match="no activation policy 'x'"):
        own.policy("x")


class Wrong(Routine):
    def __init__(self, path: str = "") -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (5, "x", "expected a class of routines"),
        (int, "x", "a subclass of Routine"),
        (Wrong, "x", "has parameters"),
        (lambda: 5, "x", "expected a routine"),
        (work, "größe", "in ASCII"),
        (work, "a b", "in ASCII"),
        (work, "", "in ASCII"),
        (work, ".a", "in ASCII"),
        (work, 5, "expected text"),
    ],
)
def test_what_cannot_be_registered(source: Any, name: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RoutineRegistry(plugins=False).register(source, name)


def test_a_prototype_with_a_wrong_config_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidValueError, match="no config key 'siz'"):
        registry().register_prototype("small", "read", {"siz": 5})
    with pytest.raises(InvalidTypeError, match="a class or a function"):
        registry().register_policy("x", 5)  # type: ignore[arg-type]


PLUGIN = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "sample-plugin"
        version = "1.0"
        [project.entry-points."routilux.routines"]
        shout = "sample_plugin.text:Shout"
        broken = "sample_plugin.missing:Nothing"
        number = "sample_plugin.text:NUMBER"
        branch = "sample_plugin.text:Shout"
        [project.entry-points."routilux.policies"]
        pairs = "sample_plugin.text:Pairs"
        [tool.hatch.build.targets.wheel]
        packages = ["sample_plugin"]
    """,
    "sample_plugin/__init__.py": "",
    "sample_plugin/text.py": """
        from routilux import routine
        from routilux.activation_policies import WAIT, ActivationPolicy, Fire

        NUMBER = 5
        print("imported the plugin")

        @routine(name="Shout")
        def Shout(text):
            return {"text": text.upper()}

        class Pairs(ActivationPolicy):
            __slots__ = ()
            name = "pairs"

            def __call__(self, slots, state):
                return Fire({"input": 2}) if len(slots["input"]) >= 2 else WAIT
    """,
}

USE = """
    from routilux import Flow
    from routilux.dsl import RoutineRegistry, DslError
    text = '''version: 1
    flow_id: x
    routines:
      a:
        class: shout
        activation:
          policy: pairs
    '''
    registry = RoutineRegistry.get_instance()
    print("shout" in registry, "pairs" in registry.policy_names())
    flow = Flow.from_yaml(text)
    print(flow.to_yaml() == text, type(flow.routines["a"]).__name__)
    for name in ("broken", "number"):
        try:
            Flow.from_yaml(text.replace("shout", name))
        except DslError as error:
            print([each.code for each in error.problems], error.problems[0].message)
    print(type(registry.create("branch")).__module__)
    try:
        registry.register(type(flow.routines["a"]), "shout")
    except ValueError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed a package into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in PLUGIN.items():
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_an_installed_plugin_is_found_on_first_use_and_imported_when_it_is_named(plugins: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(USE)],
        env={"PYTHONPATH": str(plugins), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        "RuntimeWarning: 'branch' of package 'sample-plugin' is left out: that name is built in"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [
        "True True",
        "imported the plugin",
        "True Shout",
        "['broken-class'] 'broken' of package 'sample-plugin' (sample_plugin.missing:Nothing) cannot be imported: "
        "ModuleNotFoundError: No module named 'sample_plugin.missing'; repair or uninstall that package",
        "['broken-class'] entry point 'number' of package 'sample-plugin': expected a class or a function, got 5 (int)",
        "routilux.routines.control",
        "a routine type 'shout' exists already; choose another name, or unregister that one first",
    ]
