"""From a source to a smaller network for the same task: distilled, pruned and thinned, as the recipe says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.converters.distill import Candidate, distill, student_of
from edgeseg.converters.fit import Epoch
from edgeseg.converters.latency import OpenSession, Proof, Stopwatch, with_module
from edgeseg.converters.macs import macs, parameters
from edgeseg.converters.pool import build_pool
from edgeseg.converters.provenance import tool_versions, weights_sha256
from edgeseg.converters.prune import prune
from edgeseg.converters.quantization_aware import quantization_aware
from edgeseg.converters.recipe import Distill, Prune, Quantize, Recipe, Sparsify
from edgeseg.converters.source import Source
from edgeseg.converters.teaching import Lesson, Teaching, probabilities, validation_data
from edgeseg.converters.train import segmentation_loss
from edgeseg.dataset import FrameFolder
from edgeseg.errors import BadInput
from edgeseg.types import Array

_IMPORTANCE_FRAMES = 256
_IMPORTANCE_BATCH = 16

Say = Callable[[str], None]
ReportPool = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Compressed:
    """What became of a source.

    Attributes:
        source: the smaller network, with the source's preprocessing and classes.
        module: the same without normalisation in front.
        record: every choice and figure on the way, for the manifest.
        proof: against the source.
        missed: what was asked for and not reached, in one line; empty where all was.
    """

    source: Source
    module: nn.Module
    record: dict[str, Any]
    proof: Proof
    missed: str


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames a compression works on.

    Attributes:
        learn: with or without masks; the source's word counts in either case.
        held: with masks; the best epoch, the sensitivity scan and the gates go by them.
        calibration: raw pixels [1, C, H, W] float32 for the int8 ranges of what is timed.
    """

    learn: Sequence[FrameFolder]
    held: FrameFolder
    calibration: Sequence[Array]


def compress(
    source: Source,
    recipe: Recipe,
    frames: Frames,
    folder: Path,
    open_session: OpenSession,
    *,
    say: Say = lambda line: None,
    report_pool: ReportPool = lambda done, total: None,
) -> Compressed:
    """Distill, prune and sparsify a source as the recipe says, then time the result against it.

    Args:
        source: a trained model, the teacher of all that follows.
        recipe: at least one of its sections distill, prune and sparsify, or quantize with `aware_samples`.
        frames: what to learn from and what to judge by.
        folder: keeps the pool and the state of every stage; the same call goes on from there after a kill.
        open_session: how to load an artifact in order to time it.
        say: gets a line at each stage.
        report_pool: gets (done, total) while the source labels the pool.

    Raises:
        BadInput: the held frames have no masks, or an option does not fit the source.
        UnsupportedModel: a network that cannot be pruned.
        GateFailed: no student of a search is fast enough.
    """
    if not frames.held.has_masks:
        raise BadInput(
            f"{frames.held.path} has no masks: distillation and pruning are judged by Dice on held frames, "
            f"give --eval a folder with masks"
        )
    dense = source.network.module
    assert isinstance(dense, nn.Module)
    example = source.normalised_example
    engine = (recipe.prune or recipe.distill or Distill()).engine
    stopwatch = Stopwatch(source, frames.calibration, engine, recipe, open_session)
    student = student_of(source, recipe.distill) if recipe.distill else None
    stride = student.logit_stride if student else source.preprocess.height // source.run(example.numpy()).shape[2]
    say(f"the source labels {recipe.pool.frames} augmented frames")
    pool = build_pool(folder / "pool", source, frames.learn, recipe.pool, stride, report_pool)
    lines = _epoch_lines(say)
    teaching = Teaching(source, pool, validation_data(source, frames.held), folder, lines)
    record: dict[str, Any] = {
        "pool": {**asdict(recipe.pool), "stride": stride, "sha256": [f.sha256() for f in frames.learn]},
        "score_source": teaching.score(dense),
        "frames": {"learn": [len(f) for f in frames.learn], "held": len(frames.held)},
        "tools": tool_versions("torch", "monai", "torch-pruning", "nncf"),
        "threads": torch.get_num_threads(),
    }
    say(f"source: {_size(dense, example)}, Dice {100 * record['score_source']:.2f} on {len(frames.held)} held frames")
    weights = [weights_sha256(dense)]

    def tie(stage: str) -> None:
        """By hash, what went into a stage and what came out of it."""
        weights.append(weights_sha256(module))
        record[stage] |= {"inputs": [weights[-2], *record["pool"]["sha256"]], "outputs": [weights[-1]]}

    module: nn.Module
    if recipe.distill:
        timed = stopwatch.latency_ms if recipe.distill.latency_ms is not None else None
        module, record["distill"] = distill(teaching, recipe.distill, timed, lambda c: say(_candidate(c)))
        tie("distill")
    else:
        module = copy.deepcopy(dense)
    missed = ""
    if recipe.prune:
        record["prune"], missed = _prune(module, recipe.prune, teaching, stopwatch, example, say)
        tie("prune")
    if recipe.sparsify:
        module, record["sparsify"] = _sparsify(module, recipe.sparsify, teaching, example, say)
        tie("sparsify")
    if recipe.quantize.aware_samples:
        record["quantize"] = _aware(module, recipe.quantize, teaching)
        tie("quantize")
    record["score"] = teaching.score(module)
    say(f"result: {_size(module, example)}, Dice {100 * record['score']:.2f}")
    proof = stopwatch.prove(module)
    record["proof"] = asdict(proof)
    say(f"proof: {proof}")
    return Compressed(with_module(source, module), module, record, proof, missed)


def _prune(
    module: nn.Module, options: Prune, teaching: Teaching, stopwatch: Stopwatch, example: Tensor, say: Say
) -> tuple[dict[str, Any], str]:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, taught, _, _ in teaching.pool.sample(_IMPORTANCE_FRAMES, _IMPORTANCE_BATCH):
            yield images, probabilities(taught)

    lesson = Lesson.of(options, max(1, options.samples // options.steps))
    report = prune(
        module,
        example,
        options,
        batches=batches,
        loss=segmentation_loss(teaching.classes),
        fine_tune=_FineTune(teaching, lesson),
        score=teaching.score,
        latency=stopwatch.latency_ms,
        state=teaching.folder / "prune.state.pt",
        report=say,
    )
    record = {"options": asdict(options), **asdict(report)}
    if report.met:
        return record, ""
    return record, f"[prune] {report.target} {report.wanted:g} is out of reach, the nearest is {report.reached:.3g}"


def _sparsify(
    module: nn.Module, options: Sparsify, teaching: Teaching, example: Tensor, say: Say
) -> tuple[nn.Module, dict[str, Any]]:
    from edgeseg.converters.sparsify import sparsify  # NNCF takes seconds to import

    def images() -> Iterator[Tensor]:
        for batch in teaching.pool.sample(max(1, options.adaptation_frames), _IMPORTANCE_BATCH):
            yield batch[0]

    fine_tune = _FineTune(teaching, Lesson.of(options))
    thin, report = sparsify(module, example, options, fine_tune=fine_tune, batches=images, report=say)
    return thin, {"options": asdict(options), **asdict(report)}


def _aware(module: nn.Module, options: Quantize, teaching: Teaching) -> dict[str, Any]:
    def images() -> Iterator[Tensor]:
        for batch in teaching.pool.sample(options.calibration_frames, _IMPORTANCE_BATCH):
            yield batch[0]

    lesson = Lesson(options.aware_samples, 16, options.learning_rate, 1e-4, 0.3, 0)
    quantization_aware(module, _FineTune(teaching, lesson), images)
    return {"lesson": asdict(lesson)}


@dataclass(frozen=True, slots=True)
class _FineTune:
    teaching: Teaching
    lesson: Lesson

    def __call__(
        self,
        module: nn.Module,
        name: str,
        *,
        on_step: Callable[[int, int], None] | None = None,
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        quietly: Callable[[int, int], None] = on_step or (lambda step, steps: None)
        self.teaching.fit(module, name, self.lesson, on_step=quietly, penalty=penalty)


def _epoch_lines(say: Say) -> Callable[[str, Epoch], None]:
    def line(name: str, epoch: Epoch) -> None:
        mark = " *" if epoch.best else ""
        say(
            f"{name} {epoch.number}/{epoch.epochs}  loss {epoch.loss:.4f}  Dice {100 * epoch.val_dice:.2f}"
            f"  {epoch.seconds:.0f} s{mark}"
        )

    return line


def _candidate(candidate: Candidate) -> str:
    cost = "" if candidate.latency_ms is None else f", {candidate.latency_ms:.3f} ms"
    dice = "too slow" if candidate.val_dice is None else f"Dice {100 * candidate.val_dice:.2f}"
    return f"student {candidate.options}: {candidate.macs / 1e6:.1f} MMACs{cost}, {dice}"


def _size(module: nn.Module, example: Tensor) -> str:
    return f"{macs(module, example) / 1e6:.1f} MMACs, {parameters(module) / 1e6:.3f} M parameters"
