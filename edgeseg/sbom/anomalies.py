"""Known anomalies of engines and converters, and which of them concern the versions of a bundle."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One entry of anomalies.toml, which says what each field is."""

    id: str
    package: str
    seen: tuple[str, ...]
    kind: str
    what: str
    effect: str
    source: str
    guard: str = ""
    advice: str = ""
    introduced: str = ""
    fixed: str = ""

    def status(self, version: str) -> str:
        """`affected`, `unaffected` or, where nobody looked, `unknown`; of a version, empty for one not known."""
        if not version:
            return "unknown"
        found = numbers(version)
        if (self.fixed and found >= numbers(self.fixed)) or (self.introduced and found < numbers(self.introduced)):
            return "unaffected"
        known = self.introduced or self.fixed or found in map(numbers, self.seen)
        return "affected" if known else "unknown"

    def concerns(self, version: str, lowest: str = "") -> bool:
        """Whether any version from `lowest` on, up to the one measured with, may have it."""
        return any(self.status(one) != "unaffected" for one in {version, lowest or version})

    @property
    def range(self) -> str:
        """The affected versions in the notation `vers`; empty where neither end is known."""
        ends = [f">={self.introduced}"] if self.introduced else []
        ends += [f"<{self.fixed}"] if self.fixed else []
        return "vers:pypi/" + "|".join(ends) if ends else ""


@cache
def known_anomalies() -> tuple[Anomaly, ...]:
    """All entries, in the order of the file."""
    content = tomllib.loads(files("edgeseg.sbom").joinpath("anomalies.toml").read_text("utf-8"))
    return tuple(Anomaly(**{**entry, "seen": tuple(entry["seen"])}) for entry in content["anomaly"])


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, as in (1, 31, 1)."""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])
