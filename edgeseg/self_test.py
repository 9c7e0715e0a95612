"""Whether an artifact does here what it did when it was made: the golden frames, held to tolerances measured then."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import msgspec
import numpy as np

from edgeseg import metrics
from edgeseg.diagnosis import input_fault, mask_fault
from edgeseg.evidence import Baseline, Execution, Gates
from edgeseg.execution import execution_faults, recorded
from edgeseg.golden import read_frame, read_input, read_logits, read_mask
from edgeseg.manifest import canonical
from edgeseg.parity import nchw_runner
from edgeseg.preprocess import area_of, to_input, to_mask
from edgeseg.scan_area import cut
from edgeseg.types import Array, Artifact, Bundle, Frame, Mask, Precision, Preprocess, Session

# Rounding differs between processors and versions of an engine; a wrong result is further away than this. For fp32
# no more than rounding is allowed: bf16 gives 40 to 50 dB, fp16 60 to 70.
_SQNR_MARGIN_DB = {Precision.FP32: 10.0, Precision.FP16: 6.0, Precision.INT8: 3.0}
_SQNR_ENOUGH_DB = {Precision.FP32: 80.0, Precision.FP16: 50.0, Precision.INT8: metrics.SQNR_LIMIT_DB}
_DISAGREEMENT_FACTOR, _DISAGREEMENT_SLACK = 2.0, 1e-4
_ANOTHER_MODEL_DB = 3.0


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came of the golden frames on one runtime.

    Attributes:
        frames: how many.
        executed: what the engine ran.
        sqnr_db: of the logits against the source's, over all frames; None where they have another size.
        agreement: share of a frame's pixels with the class of the source's mask, of the worst frame.
        reasons: what is wrong, the cause before its consequences; empty where it passed.
        seconds: of the whole test.
    """

    frames: int
    executed: Execution
    sqnr_db: float | None
    agreement: float
    reasons: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Expected:
    """A golden frame in memory: the frame, its recorded network input, and the source's mask and logits."""

    name: str
    frame: Frame
    input: Frame | None
    mask: Mask
    logits: Array


def read_expected(bundle: Bundle) -> tuple[Expected, ...]:
    """All golden frames of a bundle. Raises BundleError where one was changed since it was opened."""
    return tuple(
        Expected(g.frame.path.name, read_frame(g), read_input(g), read_mask(g), read_logits(g))
        for g in bundle.manifest.golden
    )


def self_test(
    bundle: Bundle, artifact: Artifact, runtime: str, session: Session, expected: Sequence[Expected]
) -> SelfTest:
    """Run the golden frames through a session and compare everything that was recorded at conversion.

    Args:
        bundle: which the artifact is from.
        artifact: what the session runs.
        runtime: the name of its runtime.
        session: open; it stays open.
        expected: from `read_expected`, at least one.

    Raises:
        InferenceError: the engine fails.
    """
    start = perf_counter()
    baseline = recorded(artifact, runtime, session.device)
    executed = session.execution()
    measured = measure(bundle.preprocess, session, expected)
    reasons = (
        *preprocessing_faults(bundle.preprocess, artifact, expected),
        *(f"execution: {fault}" for fault in execution_faults(artifact, runtime, session.device, executed)),
        *_result_faults(measured, baseline, bundle.manifest.gates),
    )
    seconds = perf_counter() - start
    return SelfTest(len(expected), executed, measured.sqnr_db, measured.agreement, reasons, seconds)


def baseline_of(
    preprocess: Preprocess,
    precision: Precision,
    session: Session,
    runtime: str,
    version: str,
    expected: Sequence[Expected],
) -> Baseline:
    """Measure what an artifact does on the golden frames here, and set the tolerances of later self-tests by it."""
    measured = measure(preprocess, session, expected)
    enough = _SQNR_ENOUGH_DB[precision]
    sqnr = measured.sqnr_db
    return Baseline(
        runtime=runtime,
        version=version,
        device=session.device,
        executed=session.execution(),
        sqnr_db=sqnr,
        agreement=measured.agreement,
        sqnr_db_min=None if sqnr is None else min(sqnr - _SQNR_MARGIN_DB[precision], enough),
        agreement_min=1 - _DISAGREEMENT_FACTOR * (1 - measured.agreement) - _DISAGREEMENT_SLACK,
    )


def preprocess_sha256(preprocess: Preprocess) -> str:
    """SHA-256 of the canonical form (RFC 8785) of a preprocessing."""
    content = msgspec.to_builtins(preprocess)
    if preprocess.scan_area is None:
        del content["scan_area"]  # bundles made before there was one have the hash without it
    return hashlib.sha256(canonical(content)).hexdigest()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a session made of the golden frames: as in `SelfTest`, and how its masks are turned against the source's."""

    sqnr_db: float | None
    agreement: float
    mean_agreement: float
    turned: str | None


def measure(preprocess: Preprocess, session: Session, expected: Sequence[Expected]) -> Measured:
    """Run all golden frames."""
    run = nchw_runner(session.run, session.inputs, session.outputs)
    signal = noise = 0.0
    comparable, agreement, turned = True, 1.0, None
    agreements = []
    for golden in expected:
        area = area_of(golden.frame, preprocess)
        logits = run(to_input(golden.frame, preprocess, area=area))
        if logits.shape == golden.logits.shape:
            wanted = golden.logits.astype(np.float64)
            signal += float(np.sum(wanted**2))
            noise += float(np.sum((wanted - logits) ** 2))
        else:
            comparable = False
        mask = to_mask(logits, golden.frame.shape, area=area)
        agreements.append(metrics.agreement(mask, golden.mask))
        if agreements[-1] < agreement:
            agreement, turned = agreements[-1], mask_fault(golden.mask, mask)
    sqnr = metrics.limited_db(signal, noise) if comparable else None
    return Measured(sqnr, agreement, float(np.mean(agreements)), turned)


def preprocessing_faults(preprocess: Preprocess, artifact: Artifact, expected: Sequence[Expected]) -> list[str]:
    """Where the network input made here is not the recorded one, or the preprocessing is not the one measured with."""
    if artifact.preprocess_sha256 not in ("", preprocess_sha256(preprocess)):
        return [f"preprocessing: the manifest's is not the one that {artifact.name} was measured with"]
    for golden in expected:
        if golden.input is None:
            continue
        seen = cut(golden.frame, area_of(golden.frame, preprocess))
        fault = input_fault(golden.input, network_input(golden.frame, preprocess), seen)
        if fault:
            return [f"preprocessing: the network input of golden frame {golden.name} {fault}"]
    return []


def network_input(frame: Frame, preprocess: Preprocess) -> Frame:
    """What a network is given for a frame, as a picture: [h, w] or [h, w, 3] uint8."""
    pixels = to_input(frame, preprocess)[0].astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _result_faults(measured: Measured, baseline: Baseline | None, gates: Gates) -> list[str]:
    """Against the tolerances of the baseline; where the artifact was never measured here, against the gates."""
    if baseline is None:
        sqnr_min, agreement_min, agreement = gates.sqnr_db_min, gates.agreement_min, measured.mean_agreement
    else:
        sqnr_min, agreement_min, agreement = baseline.sqnr_db_min, baseline.agreement_min, measured.agreement
    fault = _logits_fault(measured.sqnr_db, sqnr_min, baseline)
    # Written so that NaN fails.
    if fault is None and agreement_min is not None and not agreement >= agreement_min:
        turned = f": it is {measured.turned}" if measured.turned else ""
        which = "the pixels" if baseline is None else "the worst frame's pixels"
        fault = f"mask: {agreement:.5f} of {which} agree, tolerance >= {agreement_min:.5f}{turned}"
        if sqnr_min is not None:
            fault += ", while the logits are right"
    return [fault] if fault else []


def _logits_fault(sqnr_db: float | None, lowest: float | None, baseline: Baseline | None) -> str | None:
    if lowest is None:
        return None
    if sqnr_db is None:
        return "logits: they have another size than the source's, they are those of another model"
    if sqnr_db >= lowest:
        return None
    then = "" if baseline is None or baseline.sqnr_db is None else f", {baseline.sqnr_db:.1f} at conversion"
    whose = "" if sqnr_db > _ANOTHER_MODEL_DB else ": they are those of another model, or of a damaged one"
    return f"logits: SQNR {sqnr_db:.1f} dB, tolerance >= {lowest:.1f}{then}{whose}"
