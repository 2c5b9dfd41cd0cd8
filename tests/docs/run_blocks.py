"""Run the blocks of one document: a JSON list of [line, code] comes in, one of [line, printed text] goes out.

The process is started in an empty folder; the argument is the document, which tracebacks then quote.
"""

from __future__ import annotations

import faulthandler
import io
import json
import sys
import types

HANGS_AFTER = 45


def main(document: str) -> None:
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    blocks = json.load(sys.stdin)
    answer, results = sys.stdout, []
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    for line, code in blocks:
        sys.stdout = io.StringIO()
        # The empty lines give every statement the line number that it has in the document.
        exec(compile("\n" * (line - 1) + code, document, "exec"), module.__dict__)
        results.append((line, sys.stdout.getvalue()))
    sys.stdout = answer
    json.dump(results, answer)


if __name__ == "__main__":
    main(sys.argv[1])
