"""The log of an SSH server through a document of built-in routines, beside a few lines of plain Python."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from routilux import Flow, Runtime
from routilux.testing import simulated
from tests.docs.document import ROOT

FLOW = ROOT / "examples" / "ssh_log.flow.yaml"
LOG = ROOT.parent / "shared" / "data" / "OpenSSH_2k.log"

MADE_UP = """\
Dec 10 06:55:48 LabSZ sshd[24200]: Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2
Dec 10 06:55:49 LabSZ sshd[24200]: Invalid user webmaster from 173.234.31.186
Dec 10 07:13:56 LabSZ sshd[24227]: message repeated 5 times: [ Failed password for root from 5.36.59.76 port 42393 ssh2]
Dec 10 07:14:00 LabSZ sshd[24228]: Failed password for invalid user from 10.0.0.1 from 5.36.59.76 port 1 ssh2
Dec 10 07:15:00 LabSZ sshd[24229]: Accepted password for fztu from 119.137.62.142 port 49116 ssh2
Dec 10 07:16:00 LabSZ sshd[24230]: Connection closed by 212.47.254.145 [preauth]
"""


@pytest.mark.parametrize("seed", range(3))
def test_failures_are_counted_for_each_address_and_nothing_else_is(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("auth.log").write_text(MADE_UP)
    with simulated(seed) as runtime:
        state = runtime.exec(Flow.load(FLOW), entry_params={"path": "auth.log"})
        assert state.wait()
        assert state.status == "completed", state.error
        events = Counter(f"{output.routine_id}.{output.event}" for output in state.outputs)
    assert events == {"read.done": 1, "parse.unmatched": 1, "failed.other": 2, "save.written": 1}
    assert written() == [
        {"address": "173.234.31.186", "failures": 1, "first_line": 1, "last_line": 1},
        {"address": "5.36.59.76", "failures": 2, "first_line": 3, "last_line": 4},
    ]


@pytest.mark.skipif(
    not LOG.exists(),
    reason="the log is not part of the project: it is looked for in a folder shared/data beside the checkout",
)
def test_two_thousand_lines_of_a_real_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failures = [line for line in LOG.read_text().splitlines() if "Failed password" in line]
    expected = Counter(line.rpartition(" from ")[2].split()[0] for line in failures)
    assert (expected.total(), len(expected), expected["183.62.140.253"]) == (520, 23, 286)
    with Runtime(thread_pool_size=2) as runtime:
        state = runtime.exec(Flow.load(FLOW), entry_params={"path": str(LOG)})
        assert state.wait(60)
        assert state.status == "completed", state.error
    assert {row["address"]: row["failures"] for row in written()} == expected


def written() -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("ssh_failures.jsonl").read_text().splitlines()]
