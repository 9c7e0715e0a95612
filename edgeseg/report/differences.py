"""Two releases side by side: every figure that both have, and what else is not as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edgeseg.evidence import Gates, Latency
from edgeseg.gates import Judged
from edgeseg.report.document import Document
from edgeseg.report.judging import (
    is_lower_limit,
    judged_against_source,
    judged_at_conversion,
    judged_here,
    style_of,
)
from edgeseg.types import Artifact, Manifest

BETTER, WORSE, SAME, UNLIMITED = "better", "worse", "about the same", "no limit"
# Less than this part of what a limit leaves room for, of a latency or of a size is no change worth a word.
OF_LIMIT, OF_LATENCY, OF_SIZE = 0.05, 0.05, 0.01
_NOT_LIMITS = ("small_share",)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, then and now.

    Attributes:
        artifact: as in `openvino-int8`, or the key of a row.
        what: the figure's name within the artifact.
        name: for people, with the unit.
        old, new: the values.
        style: how they are printed.
        relative: whether the change is printed in percent of the old value.
        word: BETTER, WORSE or SAME; UNLIMITED for a figure that no gate limits.
    """

    artifact: str
    what: str
    name: str
    old: float
    new: float
    style: str
    relative: bool
    word: str

    @property
    def key(self) -> str:
        """Unique on a page."""
        return f"difference/{self.artifact}/{self.what}"

    @property
    def change(self) -> float:
        """In percent, or the difference itself."""
        return 100 * (self.new / self.old - 1) if self.relative else self.new - self.old

    @property
    def change_style(self) -> str:
        """How `change` is printed."""
        return "+.1f" if self.relative else f"+{self.style}"


def changes(document: Document) -> tuple[Change, ...]:
    """Every figure that this release and the previous one both have, artifact by artifact; empty without one."""
    if document.previous is None:
        return ()
    old, new = document.previous, document
    before, now = old.read_manifest(), new.read_manifest()
    found: list[Change] = []
    for artifact in now.artifacts:
        earlier = _named(before, artifact.name)
        if earlier is not None:
            found += _of_artifact(earlier, artifact, before, now)
        found += _of_rows(artifact.name, old, new, before, now)
    return tuple(found)


def facts(document: Document) -> tuple[tuple[str, str], ...]:
    """What else is not as it was, each (what, in words); also what keeps figures from being compared."""
    if document.previous is None:
        return ()
    before, now = document.previous.read_manifest(), document.read_manifest()
    return tuple(
        (what, text)
        for what, text in (
            *_artifacts(before, now),
            *_limits(before.gates, now.gates),
            *_network(before, now),
            *_circumstances(document.previous, document, before, now),
        )
        if text
    )


def _of_artifact(old: Artifact, new: Artifact, before: Manifest, now: Manifest) -> Iterator[Change]:
    sizes = old.size_bytes / 1e6, new.size_bytes / 1e6
    yield Change(new.name, "size_mb", "size, MB", *sizes, ".2f", True, _relative_word(*sizes, OF_SIZE))
    where = "at conversion"
    yield from _of_gates(new.name, where, judged_at_conversion(old, before), judged_at_conversion(new, now))
    where = "against the source, at conversion"
    yield from _of_gates(new.name, where, judged_against_source(old, before), judged_against_source(new, now))


def _of_rows(name: str, old: Document, new: Document, before: Manifest, now: Manifest) -> Iterator[Change]:
    """Of the runtimes on which both releases were measured; accuracy only where the frames are the same."""
    rows = {row.runtime: row for row in old.rows if row.artifact == name}
    for row in (r for r in new.rows if r.artifact == name and r.runtime in rows):
        earlier = rows[row.runtime]
        if row.run_ms and earlier.run_ms:
            then, now_ms = (Latency.of(np.array(r.run_ms) / 1e3).p50_ms for r in (earlier, row))
            word = _relative_word(then, now_ms, OF_LATENCY)
            what, label = f"{row.runtime}/p50_ms", f"median latency on {row.runtime}, ms"
            yield Change(name, what, label, then, now_ms, ".3f", True, word)
        if old.frames and new.frames and _same_frames(old, new):
            gates = judged_here(earlier, old, before), judged_here(row, new, now)
            yield from _of_gates(name, f"here, on {row.runtime}", *gates)


def _of_gates(name: str, where: str, old: tuple[Judged, ...], new: tuple[Judged, ...]) -> Iterator[Change]:
    earlier = {gate.gate: gate for gate in old}
    for gate in new:
        known = earlier.get(gate.gate)
        if known is None or known.value is None or gate.value is None:
            continue
        word = _gate_word(gate, known.value, gate.value)
        what = f"{where}/{gate.gate}"
        yield Change(name, what, f"{gate.name}, {where}", known.value, gate.value, style_of(gate.gate), False, word)


def _gate_word(gate: Judged, old: float, new: float) -> str:
    """By the room that the limit leaves: of a share of 1 what is left to 1, of dB one, else the limit itself."""
    if gate.limit is None:
        return UNLIMITED
    lower = is_lower_limit(gate.gate)
    room = gate.limit if not lower else 1 - gate.limit if gate.limit < 1 else 1 / OF_LIMIT
    if abs(new - old) <= OF_LIMIT * abs(room):
        return SAME
    return BETTER if (new > old) == lower else WORSE


def _relative_word(old: float, new: float, threshold: float) -> str:
    if not old or abs(new / old - 1) <= threshold:
        return SAME
    return BETTER if new < old else WORSE


def _artifacts(before: Manifest, now: Manifest) -> Iterator[tuple[str, str]]:
    was, are = ({a.name for a in m.artifacts} for m in (before, now))
    refused = {f"{r.format}-{r.precision}": r.reason for r in now.refused}
    for name in sorted(was - are):
        yield "Artifact gone", f"{name}{': refused now, ' + refused[name] if name in refused else ''}"
    for name in sorted(are - was):
        yield "Artifact new", name


def _limits(before: Gates, now: Gates) -> Iterator[tuple[str, str]]:
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(now)
    for gate, limit in new.items():
        if limit == old[gate] or gate in _NOT_LIMITS:
            continue
        yield f"Limit {_direction(gate, old[gate], limit)}", f"{gate}: {_limit(old[gate])}, now {_limit(limit)}"


def _direction(gate: str, old: float | None, new: float | None) -> str:
    if old is None or new is None:
        return "looser" if new is None else "stricter"
    return "stricter" if (new > old) == is_lower_limit(gate) else "looser"


def _limit(value: float | None) -> str:
    return "off" if value is None else f"{value:g}"


def _network(before: Manifest, now: Manifest) -> Iterator[tuple[str, str]]:
    yield "Name", _changed(before.name, now.name)
    yield "Classes", _changed(", ".join(before.classes), ", ".join(now.classes))
    if before.preprocess != now.preprocess:
        yield "Preprocessing", "not the same: frames are prepared in another way"
    old, new = before.provenance, now.provenance
    for label, key in (("Multiply-accumulates", "macs"), ("Parameters", "parameters"), ("Weights", "sha256")):
        yield label, _changed(_shown(old.network, key), _shown(new.network, key))
    yield "Checkpoint", _changed(_shown(old.source, "sha256"), _shown(new.source, "sha256"))
    for package in sorted(old.tools.keys() | new.tools.keys()):
        yield "Tool", _changed(old.tools.get(package, "none"), new.tools.get(package, "none"), f"{package}: ")


def _circumstances(old: Document, new: Document, before: Manifest, now: Manifest) -> Iterator[tuple[str, str]]:
    frames = (before.provenance.evaluation.get("sha256"), now.provenance.evaluation.get("sha256"))
    if frames[0] != frames[1]:
        yield "Not comparable", "the figures at conversion were measured on other frames"
    if not old.rows:
        yield "Not compared", "latency and accuracy here: the previous release is a bundle without a report"
        return
    if old.machine != new.machine:
        yield "Not comparable", f"latency: measured on another machine ({old.machine})"
    if old.threads != new.threads:
        yield "Not comparable", f"latency: measured with {old.threads} threads, now {new.threads}"
    if not _same_frames(old, new):
        yield "Not compared", "accuracy here: the frames are others"


def _same_frames(old: Document, new: Document) -> bool:
    if old.frames is None or new.frames is None:
        return False
    hashes = [[f.sha256 for f in d.frames.frames] for d in (old, new) if d.frames]
    return hashes[0] == hashes[1] and old.frames.task_only == new.frames.task_only


def _named(manifest: Manifest, name: str) -> Artifact | None:
    return next((a for a in manifest.artifacts if a.name == name), None)


def _changed(old: str, new: str, prefix: str = "") -> str:
    return "" if old == new else f"{prefix}{old}, now {new}"


def _shown(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return "not recorded"
    return f"{value:,}" if isinstance(value, int) else str(value)
