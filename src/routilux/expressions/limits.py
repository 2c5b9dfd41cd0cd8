"""The limits of the language. Every one is checked before the work that it bounds is done.

Why an evaluation is bounded: the language has no loops, no calls of values and no recursion, so each node
runs at most once, and there are at most `MAX_NODES`. What one node does is constant work, or work on a number
(bounded by `INTEGER_LIMIT`), on a text (bounded by `MAX_TEXT`) or on a container. Only the last two pay
steps, from one purse of `MAX_STEPS` for each evaluation; scalars pay nothing, which is why counting does not
show in the hot path. One thing has no price: `==` and `<` on two texts or two numbers, once a node, over data
that the caller holds already.
"""

from typing import Final

MAX_CHARACTERS: Final = 1_000
"""Length of an expression."""
MAX_NODES: Final = 200
"""Operators, operands and calls in an expression."""
MAX_DEPTH: Final = 40
"""Nesting of an expression, of its brackets, and of the values that `==`, `in` and `str` walk."""
MAX_STEPS: Final = 20_000
"""Elements of containers that one evaluation may look at; each `TEXT_STEP` characters of a text cost one."""
MAX_TEXT: Final = 64 * 1024
"""Characters of a text that an operation reads or makes."""
TEXT_STEP: Final = 128
INTEGER_LIMIT: Final = 1 << 256
"""Calculations take and give integers strictly between minus this and this."""
MAX_NUMERAL: Final = 200
"""Characters of a text that `int` and `float` read: more than the digits of the largest integer."""
MAX_ROUNDING: Final = 100
"""`round` takes between minus and plus this many digits."""
