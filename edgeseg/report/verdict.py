"""Whether a release holds here: of each artifact on each runtime, and in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.gates import failures
from edgeseg.report import document as words
from edgeseg.report.document import Document, Measured
from edgeseg.report.judging import (
    FAILED,
    NOT_RUN,
    PASSED,
    artifact_of,
    gates_decide,
    judged_against_source,
    judged_at_conversion,
    judged_here,
)
from edgeseg.types import Manifest


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one artifact on one runtime.

    Attributes:
        word: PASSED, FAILED or NOT_RUN.
        reasons: what is wrong, the cause before its consequences; or why it did not run.
    """

    word: str
    reasons: tuple[str, ...] = ()


def verdict_of(row: Measured, document: Document, manifest: Manifest) -> Verdict:
    """What was found here and what the manifest says, held against the gates of the manifest."""
    if row.state == words.ABSENT:
        return Verdict(NOT_RUN, (row.reason,))
    reasons = [row.reason] if row.state == words.FAILED else []
    reasons += [f"execution: {fault}" for fault in row.faults]
    # The self-test repeats the faults of the execution.
    reasons += [reason for reason in row.self_test or () if reason not in reasons]
    where = document.frames.name if document.frames else "these frames"
    if gates_decide(row, document, manifest):
        reasons += [f"{gate}, on {where}" for gate in failures(judged_here(row, document, manifest))]
    artifact = artifact_of(row, manifest)
    if artifact:
        reasons += [f"{gate}, at conversion" for gate in failures(judged_at_conversion(artifact, manifest))]
        against = failures(judged_against_source(artifact, manifest))
        reasons += [f"{gate}, against the source at conversion" for gate in against]
    return Verdict(FAILED, tuple(reasons)) if reasons else Verdict(PASSED)


def release(document: Document, manifest: Manifest) -> str:
    """One sentence: what was released and refused, and how it does here."""
    count = len(manifest.artifacts)
    names = [f"{r.format}-{r.precision}: {r.reason}" for r in manifest.refused]
    refused = f"{len(names)} refused ({'; '.join(names)})" if names else "none refused"
    sentence = f"{count} artifact{'' if count == 1 else 's'} released at conversion, {refused}"
    verdicts = [(row, verdict_of(row, document, manifest)) for row in document.artifacts]
    if not verdicts:
        return f"{sentence}; nothing was run for this report."
    ran = [(row, verdict) for row, verdict in verdicts if verdict.word != NOT_RUN]
    failed = [f"{row.artifact} on {row.runtime} ({v.reasons[0]})" for row, v in ran if v.word != PASSED]
    here = f"{len(ran) - len(failed)} of {len(ran)} passed here"
    if len(ran) < len(verdicts):
        here += f", {len(verdicts) - len(ran)} could not be run here"
    return f"{sentence}; {here}{', FAILED: ' + '; '.join(failed) if failed else ''}."


def passes(document: Document) -> bool:
    """Whether something ran, and everything that ran passed."""
    manifest = document.read_manifest()
    found = [verdict_of(row, document, manifest).word for row in document.artifacts]
    return PASSED in found and FAILED not in found
