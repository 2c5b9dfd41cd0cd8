"""Regular expressions that take linear time: the one place that knows RE2.

The author of the text must not decide how long a match takes. RE2 has no look-around and no back references;
a pattern that needs them is refused when the config is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from routilux import ConfigurationError
from routilux.routines.settings import Unsuitable


@lru_cache(maxsize=500)
def pattern(text: str) -> Any:
    """The compiled pattern; ConfigurationError if RE2 does not take it."""
    try:
        import re2
    except ImportError:
        raise ConfigurationError(
            "regular expressions need google-re2, which matches in linear time; install routilux[routines]"
        ) from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "not a pattern"
        raise ConfigurationError(
            f"pattern {text!r}: {reason}; look-around and back references are not possible, as they take more "
            "than linear time"
        ) from None


def found(text: str, value: str) -> bool:
    """Whether the pattern matches anywhere in the value."""
    return pattern(text).search(_searchable(value)) is not None


def matches(text: str, value: str) -> Iterator[dict[str, Any]]:
    """For each match, what its groups hold: by name, if they have names, else by number; ``match`` if none."""
    compiled = pattern(text)
    for match in compiled.finditer(_searchable(value)):
        if compiled.groupindex:
            yield match.groupdict()
        elif compiled.groups:
            yield {str(number): group for number, group in enumerate(match.groups(), 1)}
        else:
            yield {"match": match.group()}


def _searchable(value: str) -> str:
    """The text, if RE2 can read it: it reads UTF-8."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Unsuitable(
                f"the text has half of a surrogate pair at character {error.start + 1}"
            ) from None
    return value
