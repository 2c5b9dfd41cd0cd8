from __future__ import annotations

import subprocess
import sys

from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus


def test_the_three_vocabularies() -> None:
    assert [str(status) for status in WorkerStatus] == ["starting", "running", "paused", "stopped", "failed"]
    assert [str(status) for status in JobStatus] == ["pending", "running", "completed", "failed", "cancelled"]
    assert set(ExecutionStatus) == {*JobStatus, "paused"}


def test_a_status_is_its_text() -> None:
    assert JobStatus.COMPLETED == "completed"
    assert f"{JobStatus('failed')}" == "failed"
    assert JobStatus("failed") is JobStatus.FAILED


def test_what_is_over() -> None:
    over = ["completed", "failed", "cancelled"]
    assert [status for status in JobStatus if status.finished] == over
    assert [status for status in ExecutionStatus if status.finished] == over
    assert [status for status in WorkerStatus if status.ended] == ["stopped", "failed"]


def test_the_model_imports_nothing_heavy() -> None:
    modules = ["asyncio", "inspect", "logging", "difflib", "dataclasses", "threading", "msgspec", "hashlib"]
    code = (
        "import sys, types\n"
        "package = types.ModuleType('routilux'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['routilux'] = package\n"  # without its __init__, which imports the runtime
        "import routilux.model.builder, routilux.model.function, routilux.model.registry\n"
        f"print([name for name in {modules!r} if name in sys.modules])"
    )
    import routilux

    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, routilux.__path__[0]],
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "[]"
