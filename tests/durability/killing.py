"""Starts the program, kills it, starts it again, and compares what is left with what the world was told."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routilux import store
from tests.durability import ledger
from tests.durability.points import POINTS
from tests.durability.program import THREADS, Orders
from tests.postgres.server import Server

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0
"""Seconds in which a program has said something, on a machine that is busy with other things."""


@dataclass
class Told:
    """What the programs of one store have said, all of them together."""

    acked: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    def hear(self, what: str, said: Any) -> None:
        match what:
            case "acked":
                self.acked.add(said)
            case "refused":
                self.refused.add(said)
            case "unknown":
                self.unknown.add(said)
            case "state":
                self.state = said
            case _:
                self.faults.append(f"{what}: {said}")

    def keyed(self) -> list[int]:
        """The first of each thread's posts with a key that was not acknowledged; it may be in all the same."""
        next_of = [0] * THREADS
        for name in self.acked:
            kind, stream, seq = name.split(":")
            if kind == "keyed":
                next_of[int(stream[1:])] = max(next_of[int(stream[1:])], int(seq) + 1)
        return next_of


@dataclass
class Score:
    """What a kill loop has to show."""

    seed: int
    kills: int = 0
    crashes: int = 0
    at_points: int = 0
    before_ready: int = 0
    acknowledged: int = 0
    refused: int = 0
    letters: int = 0
    attempts_repeated: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.kills} kills and {self.crashes} crashes of the server ("
            f"{self.at_points} at {len(self.reached)} named points, "
            f"{self.before_ready} before the worker was open), {self.acknowledged} acknowledged, "
            f"{self.refused} refused, "
            f"{self.attempts_repeated} activations ran again, {self.letters} set aside as poison; "
            f"{len(self.lost)} lost, {len(self.twice)} twice, {len(self.wrong)} otherwise wrong"
        )

    @property
    def faults(self) -> list[str]:
        return [*self.lost, *self.twice, *self.wrong]


class Run:
    """One program, from its start to its end."""

    def __init__(self, orders: Orders, told: Told) -> None:
        self._told = told
        self._rest = b""
        self.ready = False
        self.acked = 0
        self.closed = False
        self.ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.program", orders.text()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()

    def listen(self, acks: int | None, until: float) -> None:
        """Until it has acknowledged so many posts, or has ended, or until a time."""
        while acks is None or self.acked < acks:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0] or not self._read():
                return

    def kill(self) -> bool:
        """Whether it was killed, by us or by itself; raises if it has failed in another way."""
        self._process.kill()
        while self._read():
            pass
        assert self._process.stderr is not None
        errors = self._process.stderr.read().decode()
        code = self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._process.stderr.close()
        if code not in (0, -signal.SIGKILL):
            raise AssertionError(f"the program ended with {code}:\n{errors}")
        if errors:
            self._told.faults.append(f"written to stderr: {errors}")
        return code != 0

    def _read(self) -> bool:
        data = os.read(self._out, 65_536)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            what, *said = json.loads(line)
            if what == "ready":
                self.ready = True
            elif what == "closed":
                self.closed = True
            else:
                self.acked += what == "acked"
                self._told.hear(what, *said)
        return bool(data)


class Loop:
    """Kill after kill on stores in a folder; each store is drained and checked in the end."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        most_acks: int = 300,
        most_seconds: float = 1.5,
        fault: str | None = None,
        server: Server | None = None,
    ) -> None:
        self._server = (
            server  # of PostgreSQL, which crashes now and then; without one stores are SQLite files
        )
        self._folder = folder
        self._rng = random.Random(seed)
        self._most_acks = most_acks
        self._most_seconds = most_seconds
        self._fault = fault
        self.score = Score(seed)
        self._stores = 0

    def store(self, kills: int) -> None:
        """Kill the programs of one store so many times."""
        self._stores += 1
        told, path = Told(), self._folder / f"{self._stores}"
        path.mkdir()
        durability, url = self._rng.choice(["full", "process"]), f"sqlite:///{path / 'store.db'}"
        if self._server is not None:
            durability, url = "full", self._server.url()
        log = str(path / "ledger")
        orders = Orders(url, log, durability, 0, self.score.seed, 100_000)
        orders.fault = self._fault
        killed = 0
        while killed < kills:
            orders.round += 1
            orders.keyed = told.keyed()
            killed += self._round(orders, told)
        orders.posts, orders.point = 0, None
        last = Run(orders, told)
        last.listen(None, time.monotonic() + PATIENCE)
        if last.kill() or not last.closed:
            told.faults.append("the last program did not come to its end")
        told.faults += [problem.message for problem in store.check(url)]
        check(told, Path(log), self.score)

    def _round(self, orders: Orders, told: Told) -> bool:
        """Start the program and kill it."""
        rng, score = self._rng, self.score
        orders.point = rng.choice(list(POINTS)) if rng.random() < 0.6 else None
        often = POINTS.get(orders.point or "", 1)
        orders.count = int(rng.expovariate(1 / often)) + 1
        orders.posts = rng.choice((5, 100_000, 100_000))  # few: it comes to its end, and may die in that
        run = Run(orders, told)
        begun = time.monotonic()
        if rng.random() < 0.1:  # at any time, also while it opens
            run.listen(None, begun + rng.uniform(0, 0.5))
        else:
            run.listen(1, begun + PATIENCE)
            run.listen(rng.randint(1, self._most_acks), time.monotonic() + rng.uniform(0, self._most_seconds))
            if self._server is not None and rng.random() < 0.2:
                self._server.stop("immediate")
                self._server.start()
                score.crashes += 1
                run.listen(
                    rng.randint(1, self._most_acks), time.monotonic() + rng.uniform(0, self._most_seconds)
                )
        by_itself = run.ended
        killed = run.kill()
        score.kills += killed
        score.before_ready += not run.ready
        if by_itself and killed and orders.point is not None:
            score.at_points += 1
            score.reached[orders.point] += 1
        return killed


def check(told: Told, log: Path, score: Score) -> None:
    """Compare what a store holds in the end with what its programs have said."""
    state = told.state
    wrong = [*told.faults]
    score.acknowledged += len(told.acked)
    score.refused += len(told.refused)
    if not state:
        score.wrong += [*wrong, "nothing is known of the state in the end"]
        return
    poison = {
        name for name, reason, error in state["letters"] if reason == "poison" and "PoisonItem" in error
    }
    score.letters += len(poison)
    done = {
        f"{stream}:{seq}"
        for stream, (low, beyond) in state["tally"].items()
        for seq in (*range(low), *beyond)
    }
    score.lost += sorted(told.acked - done - poison)
    score.twice += [fault for fault in state["faults"] if fault.startswith("twice")]
    wrong += [fault for fault in state["faults"] if not fault.startswith("twice")]
    wrong += [f"refused, and in: {name}" for name in sorted(told.refused & done)]
    wrong += [f"set aside: {letter}" for letter in state["letters"] if letter[0] not in poison]
    wrong += [f"still open: {job_id}" for job_id in state["open"]]
    # An execution that may be poison has its name for its job_id, and fails with its item.
    wrong += [f"failed: {job_id}: {error}" for job_id, error in state["failed"] if job_id not in poison]
    wrong += [] if state["drained"] else ["it was not drained"]
    wrong += _gaps(done, told, poison)
    chain = sorted(name for name in done if name.startswith("chain:"))
    wrong += [] if sorted(state["log"]) == chain else ["the shared log is not what the state says"]
    wrong += _outside(log, state["tokens"], score)
    score.wrong += wrong


def _gaps(done: set[str], told: Told, poison: set[str]) -> list[str]:
    """Posts of one stream are accepted one after the other: nothing is missing before what has come."""
    highest: dict[str, int] = {}
    for name in done:
        stream, _, seq = name.rpartition(":")
        if stream.startswith("part"):
            continue  # of a long piece of work, which may be poison
        highest[stream] = max(highest.get(stream, -1), int(seq))
    return [
        f"gap: {stream}:{seq}"
        for stream, last in highest.items()
        for seq in range(last)
        if f"{stream}:{seq}" not in done | poison | told.refused | told.unknown
    ]


def _outside(log: Path, tokens: dict[str, str], score: Score) -> list[str]:
    """What the outside world has seen: one key for each activation, and results that stay."""
    wrong: list[str] = []
    key_of: dict[tuple[str, str], str] = {}
    items_of: dict[str, list[str]] = {}
    runs: Counter[str] = Counter()
    charged: dict[str, list[str]] = defaultdict(list)
    had: dict[str, set[str]] = defaultdict(set)
    for what, *entry in ledger.entries(log):
        if what == "ran":
            place, key, names, _ = entry
            runs[key] += 1
            if items_of.setdefault(key, names) != names:
                wrong.append(f"key {key} for {names} and for {items_of[key]}")
            for name in names:
                if name.startswith("sour"):
                    continue  # each time that it is driven again it is other work
                if key_of.setdefault((place, name), key) != key:
                    wrong.append(f"{name} in {place} had the keys {key} and {key_of[place, name]}")
        elif what == "charged":
            name, token = entry
            if had[name]:
                wrong.append(f"once() called again after its commit: {name}")
            charged[name].append(token)
        else:
            name, token = entry
            had[name].add(token)
    wrong += [f"once() gave {name} {len(got)} results" for name, got in had.items() if len(got) > 1]
    wrong += [
        f"{name} has another token than the last" for name in tokens if charged[name][-1] != tokens[name]
    ]
    score.attempts_repeated += sum(count - 1 for count in runs.values())
    return wrong
