"""The command ``routilux``. Needs the extra ``cli``; ``python -m routilux`` does the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; ``arguments`` are those of the process if not given."""
    try:
        from routilux.cli.app import run_app  # click may be missing, and importing it takes time

        return run_app(sys.argv[1:] if arguments is None else list(arguments))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _NEEDED:
            raise
        print(
            f"Error: the command line needs the package {package}: pip install 'routilux[cli]'",
            file=sys.stderr,
        )
        return 2
