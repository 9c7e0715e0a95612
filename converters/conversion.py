"""From a source to a bundle: make each artifact, prove it against the source on real frames, keep what passes."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg import plugins
from edgeseg.bundle import file_record, write_manifest
from edgeseg.converters.latency import OpenSession
from edgeseg.converters.macs import macs, parameters
from edgeseg.converters.provenance import tool_versions, weights_sha256
from edgeseg.converters.recipe import Recipe
from edgeseg.converters.source import Source
from edgeseg.converters.step import Kind, Step, Workspace
from edgeseg.converters.weights import shortened
from edgeseg.dataset import FrameFolder, evenly_spaced, outline_offset, read_pair
from edgeseg.durable import check_target, new_folder
from edgeseg.errors import ConversionError, GateFailed, InferenceError, UnsupportedModel
from edgeseg.evidence import Gates, Parity, Provenance
from edgeseg.gates import failed_gate, failed_task_gate
from edgeseg.overlay import write_image
from edgeseg.parity import ReferenceFrame, compare, nchw_runner, reference_frame
from edgeseg.plugins import MIN_RUNTIMES
from edgeseg.preprocess import to_input
from edgeseg.self_test import Expected, baseline_of, network_input, preprocess_sha256
from edgeseg.types import Artifact, FileRecord, Format, Golden, Manifest, Precision, Preprocess, Refusal

if TYPE_CHECKING:
    from edgeseg.converters.compress import Compressed

_TOOLS = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step gave.

    Attributes:
        kind: the format and precision it makes.
        seconds: conversion and measurement.
        artifact: where it passed its gates.
        parity: where it could be measured.
        reason: why it did not pass; empty where it did.
        wanted: False for a mere intermediate.
    """

    kind: Kind
    seconds: float
    artifact: Artifact | None
    parity: Parity | None
    reason: str
    wanted: bool


def convert(
    source: Source,
    calibration: FrameFolder,
    evaluation: FrameFolder,
    output: Path,
    *,
    wanted: Sequence[Kind],
    steps: Sequence[Step],
    recipe: Recipe,
    open_session: OpenSession,
    compressed: Compressed | None = None,
    report: Callable[[StepReport], None] = lambda step: None,
) -> Manifest:
    """Make the artifacts, measure each against the source, and write those that pass into a bundle.

    Args:
        source: the trained model.
        calibration: frames whose activations set the int8 ranges.
        evaluation: frames on which source and artifact are compared; with masks, Dice is gated too.
        output: the bundle folder; written at once at the end, or not at all.
        wanted: which artifacts the bundle is to have.
        steps: from `plan`.
        recipe: frames to use and gates.
        open_session: how to load an artifact for its measurement.
        compressed: what the source was distilled or pruned to; the artifacts are made of it, and each is held against
            it and against the source.
        report: called after every step.

    Returns:
        The manifest; `refused` lists what failed and why.

    Raises:
        GateFailed: no artifact passed; nothing was written.
        UnsupportedModel: the source gives probabilities instead of logits.
        BundleError: `output` exists and is not a bundle.
    """
    check_target(output)
    network = compressed.source if compressed else source
    references = _references(network, evaluation)
    evidence = _Evidence(
        references,
        _references(source, evaluation) if compressed else [],
        outline_offset(calibration, len(source.classes)),
        recipe,
        open_session,
        _golden_frames(references, recipe.evaluate.golden_frames, source.preprocess),
    )
    inputs = [to_input(s.read_frame(), source.preprocess) for s in calibration.samples]
    artifacts: list[Artifact] = []
    refused: list[Refusal] = []
    reasons: list[str] = []
    traces: list[dict[str, Any]] = []
    hashes = _Hashes(weights_sha256(network.network.module), calibration.sha256(), evaluation.sha256())
    with new_folder(output) as staging, tempfile.TemporaryDirectory(prefix="work.", dir=staging) as work_folder:
        work = Workspace(network, Path(work_folder), inputs)
        for step in steps:
            done = _run_step(step, work, evidence, wanted=step.makes in wanted)
            report(done)
            traces.append(_trace(step, done, work, hashes))
            if done.reason:
                reasons.append(done.reason)
            if done.wanted and done.artifact:
                artifacts.append(_keep(done.artifact, work.folder, staging))
            elif done.wanted:
                refused.append(Refusal(*done.kind, done.reason, done.parity))
        if not artifacts:
            # The first one: those after it may only lack what it should have made.
            raise GateFailed(f"no artifact passed, no bundle was written: {(*reasons, 'none was wanted')[0]}")
        manifest = Manifest(
            name=output.stem,
            classes=source.classes,
            preprocess=source.preprocess,
            artifacts=tuple(artifacts),
            refused=tuple(refused),
            golden=_write_golden(evidence.golden, staging),
            gates=recipe.gates,
            provenance=_provenance(source, compressed, calibration, evaluation, traces),
            min_runtimes=MIN_RUNTIMES,
        )
        write_manifest(staging, manifest)
    return manifest


def network_parity(
    source: Source, network: Source, held: FrameFolder, learn: FrameFolder, gates: Gates
) -> tuple[Parity, str | None]:
    """How far a network is from its source on held frames, both in torch, and the first gate of the task it fails."""
    offset = outline_offset(learn, len(source.classes))
    parity = compare(
        _references(source, held), source.preprocess, network.run, "torch", offset, gates.small_share
    )
    return parity, failed_task_gate(parity, gates)


def _references(source: Source, evaluation: FrameFolder) -> list[ReferenceFrame]:
    references = []
    for sample in evaluation.samples:
        frame, truth = read_pair(sample, len(source.classes))
        references.append(reference_frame(frame, truth, source.preprocess, source.run, sample))
    if all(r.logits.shape[1] == 1 and r.logits.min() >= 0 and r.logits.max() <= 1 for r in references):
        raise UnsupportedModel(
            f"{source.name} gives values in [0, 1] on every frame: probabilities; "
            f"expected logits, drop the final sigmoid"
        )
    return references


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What an artifact is measured by: the network it is made of and, where that is not the source, the source."""

    references: Sequence[ReferenceFrame]
    source_references: Sequence[ReferenceFrame]
    hc_offset_px: float
    recipe: Recipe
    open_session: OpenSession
    golden: Sequence[Expected]

    def measure(self, kind: Kind, files: tuple[Path, ...], work: Workspace) -> Artifact:
        """An artifact with its parities."""
        preprocess = work.source.preprocess
        runtime, session = self.open_session(kind[0], files[0])
        with session:
            run = nchw_runner(session.run, session.inputs, session.outputs)

            def parity(references: Sequence[ReferenceFrame]) -> Parity | None:
                share = self.recipe.gates.small_share
                return compare(references, preprocess, run, runtime, self.hc_offset_px, share) if references else None

            records = tuple(replace(file_record(f, work.folder), path=f) for f in files)
            own, against_source = parity(self.references), parity(self.source_references)
            version = plugins.runtime(runtime).version()
            return Artifact(
                *kind,
                records,
                session.inputs,
                session.outputs,
                own,
                against_source,
                (baseline_of(preprocess, kind[1], session, runtime, version, self.golden),),
                preprocess_sha256(preprocess),
            )

    def failed(self, artifact: Artifact) -> str | None:
        """The first gate that it fails."""
        gates = self.recipe.gates
        assert artifact.parity
        reason = failed_gate(artifact.parity, gates, artifact.precision)
        if reason is None and artifact.against_source:
            failed = failed_task_gate(artifact.against_source, gates)
            reason = f"against the source: {failed}" if failed else None
        return reason


def _run_step(step: Step, work: Workspace, evidence: _Evidence, *, wanted: bool) -> StepReport:
    start = time.monotonic()
    artifact, reason = None, None
    try:
        artifact = evidence.measure(step.makes, step.apply(work), work)
        reason = evidence.failed(artifact)
    except (ConversionError, InferenceError) as error:
        reason = str(error)
    except OSError:  # a full disk is no property of the model
        raise
    except Exception as error:
        reason = f"{type(step).__name__} failed: {type(error).__name__}: {shortened(error)}"
    if artifact and not reason:
        work.made[step.makes] = artifact.path
    parity = artifact.parity if artifact else None
    passed = None if reason else artifact
    return StepReport(step.makes, time.monotonic() - start, passed, parity, reason or "", wanted)


def _keep(artifact: Artifact, work: Path, staging: Path) -> Artifact:
    """Copy the files into the bundle; later steps may still need them where they are."""
    folder = staging / "artifacts"
    folder.mkdir(exist_ok=True)
    for record in artifact.files:
        shutil.copyfile(record.path, folder / record.path.name)
    return replace(
        artifact, files=tuple(replace(r, path=Path(folder.name) / r.path.relative_to(work)) for r in artifact.files)
    )


def _golden_frames(references: Sequence[ReferenceFrame], count: int, preprocess: Preprocess) -> tuple[Expected, ...]:
    picked = (references[i] for i in evenly_spaced(len(references), count))
    return tuple(
        Expected(f"{n:03d}.png", r.frame, network_input(r.frame, preprocess), r.mask, r.logits)
        for n, r in enumerate(picked)
    )


def _write_golden(expected: Sequence[Expected], staging: Path) -> tuple[Golden, ...]:
    folder = staging / "golden"
    folder.mkdir()
    return tuple(_golden(golden, folder) for golden in expected)


def _golden(expected: Expected, folder: Path) -> Golden:
    def record(suffix: str, write: Callable[[Path], Any]) -> FileRecord:
        path = folder / f"{Path(expected.name).stem}{suffix}"
        write(path)
        return file_record(path, folder.parent)

    pixels = expected.input
    return Golden(
        frame=record(".png", lambda p: write_image(p, expected.frame)),
        mask=record(".mask.png", lambda p: write_image(p, expected.mask)),
        logits=record(".npy", lambda p: np.save(p, expected.logits, allow_pickle=False)),
        input=None if pixels is None else record(".input.png", lambda p: write_image(p, pixels)),
    )


def _provenance(
    source: Source,
    compressed: Compressed | None,
    calibration: FrameFolder,
    evaluation: FrameFolder,
    steps: Sequence[dict[str, Any]],
) -> Provenance:
    network = compressed.source if compressed else source

    def frames(folder: FrameFolder) -> dict[str, Any]:
        return {
            "folder": folder.path.name,
            "split": folder.split,
            "frames": len(folder),
            "sha256": folder.sha256(),
            "masks": folder.has_masks,
        }

    return Provenance(
        source={"name": source.name, **source.origin},
        training=source.training,
        calibration=frames(calibration),
        evaluation=frames(evaluation),
        network={
            "macs": macs(network.network, network.example),
            "parameters": parameters(network.network),
            "sha256": weights_sha256(network.network.module),
            "made_of": source.origin.get("sha256"),
        },
        compression=compressed.record if compressed else {},
        steps=tuple(steps),
        tools=tool_versions(*_TOOLS),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}",
    )


@dataclass(frozen=True, slots=True)
class _Hashes:
    """SHA-256 of what goes into a conversion: the network's weights and the two sets of frames."""

    network: str
    calibration: str
    evaluation: str


def _trace(step: Step, done: StepReport, work: Workspace, hashes: _Hashes) -> dict[str, Any]:
    """A step with its options, and by SHA-256 what it was made of, what it made, and the frames it was measured on."""
    inputs = [hashes.network]
    if step.needs is not None:
        inputs = [file_record(f, work.folder).sha256 for f in _files(work, step.needs)]
    if step.makes[1] is Precision.INT8:
        inputs.append(hashes.calibration)
    return {
        "step": type(step).__name__,
        "makes": list(step.makes),
        "options": asdict(step),  # type: ignore[call-overload]
        "inputs": inputs,
        "outputs": [f.sha256 for f in done.artifact.files] if done.artifact else [],
        "measured_on": hashes.evaluation,
    }


def _files(work: Workspace, kind: Kind) -> list[Path]:
    """The files of an artifact made earlier; none where it failed."""
    main = work.made.get(kind)
    if main is None:
        return []
    return [main, main.with_suffix(".bin")] if kind[0] is Format.OPENVINO else [main]
