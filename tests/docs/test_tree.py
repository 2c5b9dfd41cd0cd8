"""What no file of the repository may hold."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.docs.document import ROOT

REGISTRY_HOSTS = re.compile(rb"pypi[.]org|python[h]osted|npmjs[.](?:org|com)|registry[.]npm|[.]debian[.]org")
MACHINE_PATHS = re.compile(rb"/(?:work|farm|root)/|/tmp/bash_[j]obs")


def committed_files() -> list[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [name for name in listing.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [REGISTRY_HOSTS, MACHINE_PATHS], ids=["registry hosts", "machine paths"])
def test_no_file_names(pattern: re.Pattern[bytes]) -> None:
    found = [
        f"{name}:{number}: {line.decode(errors='replace').strip()[:120]}"
        for name in committed_files()
        for number, line in enumerate((ROOT / name).read_bytes().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
