"""The gates of a bundle on what was measured here, and on what its manifest says was measured at conversion."""

from __future__ import annotations

from edgeseg.execution import recorded
from edgeseg.gates import Judged, judge, judge_task
from edgeseg.report.document import Document, Measured
from edgeseg.types import Artifact, Manifest, Precision

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"
BEYOND = "beyond, the self-test decides"
# How values are printed, by what the name of the gate has in it.
_STYLES = (("logit_error", ".2e"), ("_mm", ".2f"), ("_px", ".2f"), ("_db", ".1f"), ("agreement", ".5f"))
_SHARE = ".5f"


def judged_here(row: Measured, document: Document, manifest: Manifest) -> tuple[Judged, ...]:
    """On the frames of a report; those of the task alone where the artifacts were made of another network."""
    frames, parity = document.frames, row.parity(manifest.gates.small_share)
    if parity is None or row.is_source:
        return ()
    if frames is not None and frames.task_only:
        return tuple(judge_task(parity, manifest.gates))
    return tuple(judge(parity, manifest.gates, Precision(row.precision)))


def judged_at_conversion(artifact: Artifact, manifest: Manifest) -> tuple[Judged, ...]:
    """On what the manifest says of an artifact."""
    return tuple(judge(artifact.parity, manifest.gates, artifact.precision)) if artifact.parity else ()


def judged_against_source(artifact: Artifact, manifest: Manifest) -> tuple[Judged, ...]:
    """Between an artifact and the network that its own was distilled or pruned from."""
    return tuple(judge_task(artifact.against_source, manifest.gates)) if artifact.against_source else ()


def artifact_of(row: Measured, manifest: Manifest) -> Artifact | None:
    """What the manifest says of the artifact of a row; None for the source."""
    return next((a for a in manifest.artifacts if a.name == row.artifact), None)


def gates_decide(row: Measured, document: Document, manifest: Manifest) -> bool:
    """Whether the gates hold on the frames of a report: not on golden frames with tolerances of their own.

    Limits on means are for more frames than those few; what was recorded on this runtime at conversion is narrower.
    """
    golden = document.frames is not None and document.frames.golden
    artifact = artifact_of(row, manifest)
    tested = row.self_test is not None and artifact is not None
    return not (golden and tested and artifact is not None and recorded(artifact, row.runtime, row.device))


def verdict_word(gate: Judged, decides: bool = True) -> str:
    """Of one gate."""
    if gate.passed is None:
        return "not measured" if gate.value is None else "no limit"
    return PASSED if gate.passed else FAILED if decides else BEYOND


def is_lower_limit(gate: str) -> bool:
    """Whether values must be at least the limit."""
    return "_min" in gate


def limit_text(gate: Judged) -> str:
    """As in `at most 0.005`."""
    if gate.limit is None:
        return "none"
    return f"{'at least' if is_lower_limit(gate.gate) else 'at most'} {gate.limit:g}"


def style_of(gate: str) -> str:
    """The format of a gate's value."""
    return next((style for part, style in _STYLES if part in gate), _SHARE)
