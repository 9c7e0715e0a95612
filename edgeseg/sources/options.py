"""The options behind a source: `TARGET?name=value&name=value`."""

from __future__ import annotations

import math
from urllib.parse import parse_qsl

from edgeseg.errors import BadInput


class Options:
    """What was asked for, split.

    Attributes:
        spec: all of it.
        target: the part before the question mark.
    """

    def __init__(self, spec: str) -> None:
        """Split. Raises BadInput for options that are not `name=value`, or given twice."""
        self.spec = spec
        self.target, mark, query = spec.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark), max_num_fields=16)
        except ValueError:
            raise BadInput(f"{spec}: {query!r} are no options, expected name=value&name=value") from None
        self._given = dict(pairs)
        if len(self._given) != len(pairs):
            raise BadInput(f"{spec} gives an option twice, expected each once")
        self._known: list[str] = []

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """An option that is a whole number, None where it is not given. Raises BadInput."""
        self._known.append(name)
        text = self._given.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and lowest <= int(text) <= highest):
            raise BadInput(f"{self.spec}: {name} is {text!r}, expected a number from {lowest} to {highest}")
        return int(text)

    def figure(self, name: str, highest: float) -> float | None:
        """An option that is a positive number, None where it is not given. Raises BadInput."""
        self._known.append(name)
        text = self._given.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= highest:
            raise BadInput(f"{self.spec}: {name} is {text!r}, expected a number above 0 and at most {highest:g}")
        return value

    def check_all_used(self) -> None:
        """Raise BadInput where an option was given that nothing asked for."""
        if unknown := sorted(set(self._given) - set(self._known)):
            known = ", ".join(self._known) or "none"
            raise BadInput(f"{self.spec}: {', '.join(unknown)} is no option here, expected {known}")
