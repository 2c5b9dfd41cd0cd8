"""Databases to damage, and disks to fill."""

import subprocess
from contextlib import closing

import pytest

from routilux.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def opened(path):
    """Opens the store at ``path``, and closes whatever the test leaves open."""
    stores = []

    def open_store(at=path, **options):
        stores.append(SqliteStore(at, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of some MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(mebibytes, options=""):
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m{options}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a file system is not allowed here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def write_once(path, changes):
    with closing(SqliteStore(path)) as store:
        store.write(changes)
