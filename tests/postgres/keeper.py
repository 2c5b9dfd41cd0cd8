"""Keeps one private PostgreSQL server as long as somebody holds the other end of its standard input.

Run as ``python keeper.py FOLDER``: it makes a cluster in FOLDER/data, starts a server that listens on a socket in
FOLDER, and then reads one command a line: ``stop MODE`` (fast, immediate) or ``start``. Every line that it prints
is an answer, ``ok`` or ``failed: why``. At the end of its input it stops the server and removes FOLDER; the input
also ends when the process at its other end was killed, so that no server is left behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

SETTINGS = {
    "listen_addresses": "",  # the socket only: no port to find, and nobody else can connect
    "max_connections": "60",
    "shared_buffers": "64MB",
    "fsync": "on",
    "log_min_messages": "warning",
}


def main(folder: Path) -> None:
    try:
        cluster = Cluster(folder)
        answer(cluster.make)
        for line in sys.stdin:
            command, *arguments = line.split()
            answer({"start": cluster.start, "stop": cluster.stop}[command], *arguments)
        cluster.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answer(action, *arguments: str) -> None:
    try:
        action(*arguments)
    except (OSError, KeyError, RuntimeError) as error:
        print("failed:", " ".join(str(error).split()), flush=True)
    else:
        print("ok", flush=True)


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.user = server_user()

    def make(self) -> None:
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        options = ["--auth=trust", "--username=routilux", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", f"--pgdata={self.data}", *options)
        lines = [f"{name} = '{value}'\n" for name, value in SETTINGS.items()]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines([*lines, f"unix_socket_directories = '{self.folder}'\n"])
        self.start()

    def start(self) -> None:
        log = self.folder / "log"
        try:
            self._run("pg_ctl", "start", "--wait", f"--pgdata={self.data}", f"--log={log}")
        except RuntimeError as error:
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise RuntimeError(f"{error} {said[-2000:]}") from None

    def stop(self, mode: str) -> None:
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--wait", f"--pgdata={self.data}", f"--mode={mode}")

    def _run(self, program: str, *arguments: str) -> None:
        """A file takes the output: a pipe would be held open by the server, which outlives pg_ctl."""
        identity = (
            {} if self.user is None else {"user": self.user, "group": group_of(self.user), "extra_groups": ()}
        )
        output = self.folder / f"{program}.out"
        with output.open("wb") as file:
            done = subprocess.run(
                [str(binaries() / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=self.folder, check=False,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(self.folder)},
                **identity,
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {output.read_text(encoding='utf-8', errors='replace')}")


def binaries() -> Path:
    """Where initdb, pg_ctl and postgres are: the newest of Debian's places, else beside the one on the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = places[-1] if places else shutil.which("initdb")
    if found is None:
        raise RuntimeError(
            "the tests of the PostgreSQL store need the programs of a PostgreSQL server, and there is no initdb on the "
            "PATH nor in /usr/lib/postgresql; on Debian and Ubuntu: apt-get install postgresql"
        )
    return Path(found).resolve().parent


def server_user() -> str | None:
    """Who runs the server: PostgreSQL refuses to run as root. None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise RuntimeError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
    )


def group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


if __name__ == "__main__":
    main(Path(sys.argv[1]))
