"""What a report holds: the raw samples of one measuring run, and the manifest of the bundle as it was read.

The page embeds this document. Every figure on it follows from here alone (`edgeseg.report.figures`), so that it can be
computed again from the page, without the bundle and without an engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgeseg import metrics
from edgeseg.evidence import Execution, Parity
from edgeseg.frontier.document import Frontier
from edgeseg.manifest import convert_manifest
from edgeseg.parity import Comparison, FrameDifference
from edgeseg.types import Manifest

SCHEMA = 1
MEASURED, FAILED, ABSENT = "measured", "failed", "absent"


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """A frame that was measured on: its name, SHA-256, and exam (empty where not known)."""

    name: str
    sha256: str
    exam: str = ""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of this report.

    Attributes:
        golden: whether they are the golden frames of the bundle.
        task_only: whether the artifacts were compared with another network than the one they were made of, so that only
            the gates of the task hold.
        reference: what artifacts were compared with, in words.
        folder, split, sha256: of the frames folder; empty for golden frames.
        hc_offset_px: outline offset of the folder's masks, see `edgeseg.metrics.outline_offset_px`.
        frames: each of them.
    """

    golden: bool
    reference: str
    task_only: bool = False
    folder: str = ""
    split: str = ""
    sha256: str = ""
    hc_offset_px: float = 0.0
    frames: tuple[MeasuredFrame, ...] = ()

    @property
    def name(self) -> str:
        """As in `8 golden frames` or `144 frames of hc18 test`."""
        of = " ".join(filter(None, (self.folder, self.split)))
        return f"{len(self.frames)} golden frames" if self.golden else f"{len(self.frames)} frames of {of}"


@dataclass(frozen=True)
class Measured:
    """One artifact on one runtime, or the source in torch; nothing averaged.

    Attributes:
        artifact: as in `openvino-int8`; `torch` or `torch-channels-last` for the source.
        precision: of the artifact.
        runtime, version, device, threads: where it ran.
        state: "measured", "failed", or "absent" where the engine is merely not installed.
        reason: of a failure or absence.
        executed: from the engine's own records.
        faults: in what the execution is not what was asked for.
        self_test: what the self-test on the golden frames found wrong; None where there was none.
        differences: from the source, one a frame, in the order of `Frames.frames`.
        energies: of the logits of each frame, (signal, noise): sum of s^2 and of (s - a)^2; None where the logits have
            another size than the source's.
        run_ms: the engine alone, one a timed call.
        total_ms: frame in to mask out, one a turn.
    """

    artifact: str
    precision: str
    runtime: str
    version: str
    device: str
    threads: int | None
    state: str = MEASURED
    reason: str = ""
    executed: Execution | None = None
    faults: tuple[str, ...] = ()
    self_test: tuple[str, ...] | None = None
    differences: tuple[FrameDifference, ...] = ()
    energies: tuple[tuple[float, float] | None, ...] = ()
    run_ms: tuple[float, ...] = ()
    total_ms: tuple[float, ...] = ()

    @property
    def key(self) -> str:
        """Unique in a report, as in `openvino-int8.openvino`."""
        return f"{self.artifact}.{self.runtime}"

    @property
    def is_source(self) -> bool:
        """Whether this is the source in torch."""
        return self.artifact.startswith("torch")

    @property
    def sqnr_db(self) -> float | None:
        """Of the logits over all frames; limited as in `Parity`."""
        known = [energy for energy in self.energies if energy is not None]
        if not known:
            return None
        return metrics.limited_db(sum(s for s, _ in known), sum(n for _, n in known))

    def parity(self, small_share: float) -> Parity | None:
        """All differences together; None where no frame was compared. `small_share` as in `edgeseg.evidence.Gates`."""
        if not self.differences:
            return None
        if small_share not in self._parities:
            found = Comparison(frames=list(self.differences)).parity(self.runtime, small_share)
            self._parities[small_share] = replace(found, sqnr_db=self.sqnr_db)
        return self._parities[small_share]

    @cached_property
    def _parities(self) -> dict[float, Parity]:
        """Kept, because intervals take their time."""
        return {}

    @property
    def ranked(self) -> list[int]:
        """Indices of the frames, the worst first: by Dice to the reference masks where all have one, else the source's.

        Equal frames are in the order of their names.
        """
        known = all(d.dice is not None for d in self.differences)
        scores = [d.dice if known and d.dice is not None else d.dice_source for d in self.differences]
        return sorted(range(len(scores)), key=lambda i: (scores[i], self.differences[i].name))


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signed, where a signature was checked; else how many signatures there are that were not."""

    signer: str = ""
    unchecked: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """A known anomaly of an engine or converter; the fields are those of `edgeseg.sbom.anomalies.Anomaly`.

    Attributes:
        version: of the package, here for an engine and at conversion for a converter.
        status: of that version.
    """

    id: str
    package: str
    version: str
    status: str
    kind: str
    what: str
    effect: str
    guard: str
    advice: str
    source: str


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a report.

    Attributes:
        bundle: its file name.
        manifest: the JSON object of manifest.json as it was read, with its digest.
        manifest_sha256: of that file.
        machine, created, command, edgeseg: where, when (UTC, ISO 8601), how and by which version it was made.
        threads, rounds, repeats: how latency was measured.
        frames: what was measured on; None for a bundle that was only read.
        rows: what was measured, the source last.
        signing: of the bundle.
        anomalies: of the engines here and the converters, those that may concern this release.
        frontier: judged, from `edgeseg frontier`.
        previous: the release that this one is compared with, itself without one.
        schema: of this document.
    """

    bundle: str
    manifest: dict[str, Any]
    manifest_sha256: str = ""
    machine: str = ""
    created: str = ""
    command: str = ""
    edgeseg: str = ""
    threads: int | None = None
    rounds: int = 0
    repeats: int = 0
    frames: Frames | None = None
    rows: tuple[Measured, ...] = ()
    signing: Signing = Signing()
    anomalies: tuple[Known, ...] = ()
    frontier: Frontier | None = None
    previous: Document | None = None
    schema: int = SCHEMA

    def read_manifest(self) -> Manifest:
        """The manifest; file paths are relative to the bundle. Raises BundleError where it is none."""
        return convert_manifest(self.manifest)

    @property
    def artifacts(self) -> tuple[Measured, ...]:
        """The rows of artifacts."""
        return tuple(r for r in self.rows if not r.is_source)
