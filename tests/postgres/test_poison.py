"""An item that kills its process is set aside after three deaths, also where its worker is leased."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.postgres.test_ownership import run_out

ROOT = Path(__file__).parents[2]
LIFE = """
import json, os, sys, tempfile
tempfile.tempdir = sys.argv[2]
from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy

class Work(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())
    def logic(self, slot_data, policy_message, state):
        os._exit(9)

flow = Flow("deadly")
flow.add_routine(Work(), "work")
runtime = Runtime(store=sys.argv[1])
if len(sys.argv) > 3:
    runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "work", "input", {})
elif runtime.recover(flows=[flow]).not_reopened:
    os._exit(5)
runtime.wait_until_all_jobs_finished(60)
print(json.dumps([letter.reason for letter in runtime.dead_letters()]))
runtime.shutdown()
"""


def live(url: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIFE, url, str(folder), *more]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)


def test_a_death_is_counted_when_the_worker_is_opened_and_not_lost_before(
    url: str, admin: Any, tmp_path: Path
) -> None:
    assert live(url, tmp_path, "post").returncode == 9
    for _ in range(2):
        for _ in range(2):  # started again at once: the lease of the dead one still runs
            assert live(url, tmp_path).returncode == 5
        run_out(admin)
        assert live(url, tmp_path).returncode == 9
    run_out(admin)
    last = live(url, tmp_path)
    assert (last.returncode, json.loads(last.stdout)) == (0, ["poison"])
    assert list(tmp_path.rglob("*.flight*")) == []
