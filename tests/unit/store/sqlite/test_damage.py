"""Files that are cut, flipped, removed or swapped: a store gives back everything, or says that it is damaged.

The proof takes images of a store as a killed process leaves it, and as ``close`` leaves it, damages one file, opens the
store and reads all of it. What it reads has to be all that was acknowledged; anything less has to be an error.
"""

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from routilux.errors import StoreCorruptError, StoreError
from routilux.store.sqlite import SqliteStore
from routilux.testing.store_rows import RandomChanges, contents

NAMES = ["store.db", "store.db-wal", "store.db.mark"]
WORKERS, OWNERS = ["a", "b", "c"], ["", "0", "1", "2", "3"]


def everything(store):
    return contents(store, WORKERS, OWNERS)


class Images:
    """Copies of the files of one store at several moments, each with what had been acknowledged."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._path = folder / "store.db"
        self.taken = []
        random = Random(seed)
        writer = RandomChanges(random)
        for _ in range(3):
            with closing(SqliteStore(self._path)) as store:
                for step in range(random.randrange(3, 12)):
                    self._write(store, writer, random, step)
                self._copy(everything(store))  # as a killed process leaves them
                read = everything(store)
            self._copy(read)

    def _write(self, store, writer, random, step):
        writer.learn(store)
        made = writer.next(step)
        made.forgotten, made.keys = [], []
        made.items = [row._replace(data=random.randbytes(200)) for row in made.items]
        store.write(made)

    def _copy(self, acknowledged):
        into = self._folder / f"image{len(self.taken)}"
        into.mkdir()
        for name in NAMES:
            if (self._folder / name).exists():
                shutil.copy(self._folder / name, into / name)
        self.taken.append((into, acknowledged))


def damage(random: Random, folder: Path, images: list[Path]) -> str:
    """Do something to one file; returns what."""
    file = random.choice([file for name in NAMES if (file := folder / name).exists()])
    kind = random.choice(["bit", "byte", "bytes", "page", "cut", "longer", "removed", "swapped"])
    content = bytearray(file.read_bytes())
    at = random.randrange(len(content)) if content else 0
    match kind:
        case "bit" if content:
            content[at] ^= 1 << random.randrange(8)
        case "byte" if content:
            content[at] = random.randrange(256)
        case "bytes" if content:
            content[at : at + random.randrange(2, 40)] = random.randbytes(random.randrange(2, 40))
        case "page":
            start = at // 4096 * 4096
            content[start : start + 4096] = bytes(len(content[start : start + 4096]))
        case "cut":
            del content[at:]
        case "longer":
            content += random.randbytes(random.randrange(1, 5_000))
        case "swapped" if (
            file.name != "store.db"
        ):  # beside its log, one of another moment can fit: see the manual
            other = random.choice(images) / file.name
            content = bytearray(other.read_bytes()) if other.exists() else content
    file.write_bytes(content)
    if kind == "removed":
        file.unlink()
    return f"{file.name} {kind} at {at}"


def outcome(random: Random, images: Images, folder: Path) -> str:
    """Damage a copy of an image and open it: "whole", "refused", or the description of a silent loss."""
    image, acknowledged = random.choice(images.taken)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(image, folder)
    what = damage(random, folder, [other for other, _ in images.taken])
    try:
        with closing(SqliteStore(folder / "store.db")) as store:
            read = everything(store)
    except (StoreCorruptError, StoreError):
        return "refused"
    return "whole" if read == acknowledged else f"silent loss: {image.name} {what}"


def prove(tmp_path: Path, seed: int, cases: int) -> Counter:
    """The outcomes of so many cases."""
    tmp_path.mkdir(exist_ok=True)
    images, random = Images(tmp_path, seed), Random(seed)
    outcomes = Counter(outcome(random, images, tmp_path / "case") for _ in range(cases))
    print(f"seed {seed}: {dict(outcomes)}")
    return outcomes


def test_damage_is_never_silent(tmp_path):
    outcomes = prove(tmp_path, seed=Random().randrange(10**9), cases=200)
    assert set(outcomes) == {"whole", "refused"}
    assert outcomes["refused"] > 50


@pytest.mark.full
@pytest.mark.parametrize("part", range(20))
def test_damage_is_never_silent_in_20_000_cases(tmp_path, part):
    outcomes = prove(tmp_path, seed=Random().randrange(10**9), cases=1_000)
    assert set(outcomes) == {"whole", "refused"}
