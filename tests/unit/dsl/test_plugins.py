"""Plugins that are really installed, and used by a program of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

SAMPLE = Path(__file__).parents[2] / "data" / "sample_plugin"

PRELUDE = """
    import json, warnings
    from routilux import Flow, RoutineRegistry
    from routilux.dsl import DslError, schema

    registry = RoutineRegistry.get_instance()
    caught = []
    warnings.showwarning = lambda message, *rest: caught.append(str(message))
    warnings.simplefilter("always")

    def problems(text):
        try:
            Flow.from_yaml("version: 1\\nflow_id: x\\nroutines:\\n" + text)
        except DslError as error:
            return [f"{each.code}: {each.message}" for each in error.problems]
"""

DOCUMENT = """\
version: 1
flow_id: loud
entry: words.input
routines:
  words:
    class: words
  shout:
    class: shout
    config:
      mark: "?"
    activation:
      policy: groups
      size: 3
connections:
  - {from: words.output, to: shout.input}
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the sample into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    shutil.copytree(SAMPLE, source, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def run(program: str, *folders: Path) -> Any:
    """What a program with these folders on its path has printed, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(PRELUDE) + dedent(program)],
        env={"PYTHONPATH": ":".join(map(str, folders)), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def package(folder: Path, name: str, entry_points: str) -> Path:
    """A folder with a package that has nothing but entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return folder


def test_routines_and_policies_of_a_plugin_are_listed_without_importing_it(plugins: Path) -> None:
    program = """
        print("shout" in registry, "words" in registry.names(), "groups" in registry.policy_names())
        print({"const": "shout"} in [{"const": each["const"]} for each in
              schema()["$defs"]["routine"]["properties"]["class"]["anyOf"] if "const" in each])
    """
    assert run(program, plugins) == ["True True True", "the plugin is imported", "True"]


def test_a_document_uses_the_routines_and_the_policy_of_a_plugin(plugins: Path) -> None:
    program = f"""
        text = {DOCUMENT!r}
        flow = Flow.from_yaml(text)
        print(flow.to_yaml() == text, type(flow.routines["shout"]).__module__)
        state = flow.execute(entry_params={{"text": "a b c d"}}, timeout=30)
        print(json.dumps([output.data["text"] for output in state.outputs]))
    """
    *_, same, texts = run(program, plugins)
    assert (same, json.loads(texts)) == ("True sample_plugin.text", ["A B C?", "D?"])


def test_what_is_broken_in_a_plugin_is_named_where_it_is_used(plugins: Path) -> None:
    names = ["missing_module", "missing_name", "number", "with_parameters", "failing_factory", "leaving"]
    program = f"""
        for name in {names}:
            print(*problems(f"  a: {{{{class: {{name}}}}}}\\n"))
        print(*problems("  a: {{class: words, activation: {{policy: careless}}}}\\n"))
    """
    of = "of package 'sample-plugin'"
    assert [line for line in run(program, plugins) if line != "the plugin is imported"] == [
        f"broken-class: 'missing_module' {of} (sample_plugin.missing:Nothing) cannot be imported: ModuleNotFoundError: "
        "No module named 'sample_plugin.missing'; repair or uninstall that package",
        f"broken-class: 'missing_name' {of} (sample_plugin.text:Nothing) cannot be imported: AttributeError: module "
        "'sample_plugin.text' has no attribute 'Nothing'; repair or uninstall that package",
        f"broken-class: entry point 'number' {of}: expected a class or a function, got 5 (int)",
        f"broken-class: routine type 'with_parameters' {of}: WithParameters.__init__ has parameters ['mark'], and a "
        "document gives none; take them from the config, or register a factory",
        f"broken-class: routine type 'failing_factory' {of}: its factory failing_factory() raised OSError: no such "
        "device; repair it, or give it no parameters if it has some",
        f"broken-class: 'leaving' {of} (sample_plugin.leaving:Anything) cannot be imported: SystemExit: 3; repair or "
        "uninstall that package",
        "configuration: policy 'careless' cannot be made: KeyError: 'policy'",
    ]


def test_what_is_broken_is_left_out_of_a_list_with_a_warning_and_the_rest_is_there(plugins: Path) -> None:
    program = """
        found = [kind.name for kind in registry.types()]
        print({"shout", "words", "branch"} <= set(found), registry.create("branch").__module__)
        for message in caught:
            print(message.partition(":")[0])
    """
    out = "is left out"
    assert [line for line in run(program, plugins) if line != "the plugin is imported"] == [
        "True routilux.routines.control",
        f"'branch' of package 'sample-plugin' {out}",
        f"'immediate' of package 'sample-plugin' {out}",
        *(
            f"routine type {name!r} {out}"
            for name in (
                "failing_factory",
                "leaving",
                "missing_module",
                "missing_name",
                "number",
                "with_parameters",
            )
        ),
    ]


def test_a_flow_of_a_sound_class_can_be_written_beside_broken_ones(plugins: Path) -> None:
    program = """
        from sample_plugin.text import Shout
        flow = Flow("x")
        flow.add_routine(Shout(), "a")
        print(flow.to_dict()["routines"])
    """
    assert run(program, plugins)[-1] == "{'a': {'class': 'shout'}}"


def test_a_package_whose_entry_points_cannot_be_read_takes_no_other_with_it(
    plugins: Path, tmp_path: Path
) -> None:
    damaged = package(tmp_path / "damaged", "damaged", "[routilux.routines]\nthis is no entry point\n")
    program = """
        print("shout" in registry, "groups" in registry.policy_names())
        print([message for message in caught if "damaged" in message])
    """
    listed, messages = run(program, damaged, plugins)
    assert listed == "True True"
    assert "the entry points of package 'damaged' are left out, they cannot be read: TypeError" in messages


def test_names_that_no_document_can_write_are_left_out(plugins: Path, tmp_path: Path) -> None:
    odd = package(tmp_path / "odd", "odd", "[routilux.routines]\ngröße = odd:Thing\na b = odd:Thing\n")
    program = """
        print("shout" in registry, [name for name in registry if name.startswith(("gr", "a b"))])
        print(*[message for message in caught if "odd" in message], sep="\\n")
    """
    listed, *messages = run(program, odd, plugins)
    assert listed == "True []"
    assert [message.partition(":")[0] for message in messages] == [
        "'größe' of package 'odd' is left out",
        "'a b' of package 'odd' is left out",
    ]


def test_a_name_that_two_packages_offer_is_refused_and_the_others_work(plugins: Path, tmp_path: Path) -> None:
    other = package(tmp_path / "other", "other-plugin", "[routilux.routines]\nshout = other:Shout\n")
    program = """
        print(*problems("  a: {class: shout}\\n"))
        print(problems("  a: {class: words}\\n"))
    """
    lines = run(program, plugins, other)
    assert lines[0] == (
        "broken-class: several packages offer 'shout' as routilux.routines: package 'sample-plugin' "
        "(sample_plugin.text:Shout), package 'other-plugin' (other:Shout); uninstall all but one of them"
    )
    assert lines[-1] == "None"


def test_names_of_a_plugin_are_taken_until_they_are_given_up(plugins: Path) -> None:
    program = """
        from routilux import routine

        @routine
        def mine(word):
            return {"text": word}

        for register in (lambda: registry.register(mine, "shout"), lambda: registry.register_policy("groups", dict)):
            try:
                register()
            except ValueError as error:
                print(error)
        registry.unregister("shout").register(mine, "shout").unregister_policy("groups").register_policy("groups", dict)
        print(type(registry.create("shout")).__name__, registry.policy("groups").__name__)
    """
    again = "exists already; choose another name, or unregister that one first"
    assert run(program, plugins) == [
        f"a routine type 'shout' {again}",
        f"a policy 'groups' {again}",
        "mine dict",
    ]
