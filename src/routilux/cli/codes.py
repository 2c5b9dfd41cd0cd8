"""What the process ends with."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1  # the flow, or what was asked for
USAGE: Final = 2
INVALID: Final = 3  # a flow document
TIMED_OUT: Final = 4
IN_USE: Final = 5  # another process has the store
SIGNALLED: Final = 128  # and the number of the signal
INTERRUPTED: Final = SIGNALLED + 2
CLOSED_PIPE: Final = 141  # as a program that SIGPIPE ends
