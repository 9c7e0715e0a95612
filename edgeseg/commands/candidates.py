"""What bench, verify and frontier measure: artifacts loaded on runtimes, and sources in torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeseg import plugins
from edgeseg.commands.rows import Row
from edgeseg.engine_options import Options, Plan, choice_of
from edgeseg.errors import BadInput, InferenceError, MissingDependency
from edgeseg.parity import Comparison, RunLogits, nchw_runner
from edgeseg.preprocess import area_of, to_input, to_mask
from edgeseg.runtimes.choice import fitting
from edgeseg.runtimes.opening import open_session
from edgeseg.types import Array, Artifact, Bundle, Frame, Mask, Preprocess, Session

if TYPE_CHECKING:
    from edgeseg.converters.source import Source


@dataclass(frozen=True, slots=True)
class FrameScore:
    """How good one mask is. `dice` is None without a reference mask, `hc_error_mm` without a reference measurement."""

    exam: str
    dice: float | None
    hc_error_mm: float | None


@dataclass(slots=True)
class Candidate:
    """Something that turns raw pixels into logits, with the row it fills.

    Attributes:
        row: what was found out.
        run: pixels to logits.
        preprocess: what happens to a frame before it.
        artifact, session: None for a torch source.
        options: that its engine was given.
        comparison: with the source's results, frame by frame.
        scores: against the references of the folder, frame by frame.
        seconds: of `run` alone, one a timed call.
        total_seconds: frame in to mask out, one a turn.
    """

    row: Row
    run: RunLogits
    preprocess: Preprocess
    artifact: Artifact | None = None
    session: Session | None = None
    options: Options = field(default_factory=dict)
    comparison: Comparison = field(default_factory=Comparison)
    scores: list[FrameScore] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    total_seconds: list[float] = field(default_factory=list)

    def segment(self, frame: Frame) -> tuple[Array, Mask]:
        """Logits [1, L, h, w] and mask [H, W] of a frame; raises EdgesegError where there are none."""
        area = area_of(frame, self.preprocess)
        logits = self.run(to_input(frame, self.preprocess, area=area))
        return logits, to_mask(logits, frame.shape, area=area)

    def fail(self, error: Exception) -> None:
        """Mark the row as failed."""
        self.row.passed, self.row.reason = False, str(error)


@contextlib.contextmanager
def load_candidates(
    bundle: Bundle,
    runtimes: Sequence[str],
    device: str,
    threads: int | None,
    isolate: bool = False,
    plan: Plan = (),
) -> Iterator[tuple[list[Candidate], list[Row]]]:
    """Every artifact on every runtime that reads its format.

    Args:
        bundle: an opened bundle.
        runtimes: names; all engines (of the plan) where empty, and then one that is not installed is no error.
        device: of the runtimes, or "auto".
        threads: CPU threads, None for the engines' own choice.
        isolate: whether each gets a process of its own.
        plan: which engines with which artifacts, and how.

    Yields:
        The loaded candidates, and a row with the reason for each pair that could not be loaded.
    """
    candidates: list[Candidate] = []
    missing: list[Row] = []
    with contextlib.ExitStack() as stack:
        for row, artifact in candidate_rows(bundle, runtimes, device, threads, plan):
            try:
                candidates.append(load_candidate(stack, bundle, artifact, row, isolate, plan))
            except (InferenceError, MissingDependency) as error:
                if runtimes:
                    raise
                missing.append(unloaded(row, error))
        if not candidates:
            reasons = "; ".join(sorted({r.reason or "" for r in missing})) or "no artifact fits"
            raise InferenceError(f"nothing in {bundle.path.name} can run here: {reasons}")
        yield candidates, missing


def candidate_rows(
    bundle: Bundle, runtimes: Sequence[str], device: str, threads: int | None, plan: Plan = ()
) -> Iterator[tuple[Row, Artifact]]:
    """An empty row for each artifact on each runtime that reads its format.

    Where `runtimes` is empty these are the engines of the plan, and without one all.
    """
    for name in runtimes or [choice.runtime for choice in plan] or plugins.ENGINES:
        choice = choice_of(plan, name)
        for artifact in fitting(bundle, choice):
            size_mb = artifact.size_bytes / 1e6
            cores = choice.threads or threads
            yield Row(artifact.format, artifact.precision, name, device, cores, size_mb=size_mb), artifact


def load_candidate(
    stack: contextlib.ExitStack,
    bundle: Bundle,
    artifact: Artifact,
    row: Row,
    isolate: bool = False,
    plan: Plan = (),
) -> Candidate:
    """Load an artifact on the runtime and device of its row, for as long as `stack` lives.

    Raises:
        InferenceError, MissingDependency: as `edgeseg.runtimes.opening.open_session`.
    """
    choice = choice_of(plan, row.runtime)
    told: dict[str, Any] = {"device": row.device, "threads": row.threads, "isolate": isolate, "choice": choice}
    session = stack.enter_context(open_session(bundle, artifact, row.runtime, **told))
    row.device = session.device
    run = nchw_runner(session.run, session.inputs, session.outputs)
    return Candidate(row, run, bundle.preprocess, artifact, session, choice.options)


def unloaded(row: Row, error: Exception) -> Row:
    """The row with the reason: failed, or not run where the engine is merely not installed."""
    row.reason = str(error)
    row.passed = None if isinstance(error, MissingDependency) else False
    return row


def torch_candidates(spec: str, options: dict[str, Any], bundle: Bundle, threads: int | None) -> list[Candidate]:
    """The source as candidates: torch eager, and fused channels-last. Raises BadInput where it is another model."""
    # A scan area may have been chosen at conversion, then the source itself does not know of it.
    source = open_source(spec, {**options, "scan_area": options.get("scan_area") or bundle.preprocess.scan_area})
    if (source.preprocess, source.classes) != (bundle.preprocess, bundle.classes):
        raise BadInput(
            f"{spec} has {source.preprocess} and classes {source.classes}, the bundle {bundle.preprocess} and "
            f"{bundle.classes}: it is not this bundle's source"
        )
    made_from = bundle.manifest.provenance.source
    if source.origin["kind"] == made_from.get("kind") and source.origin.get("sha256") != made_from.get("sha256"):
        raise BadInput(f"{spec} has other weights than the source of this bundle: their SHA-256 differs")
    return source_candidates(source, threads)


def open_source(spec: str, options: dict[str, Any]) -> Source:
    """Load a source by the options of `source_options`. Raises MissingDependency without torch."""
    plugins.require("convert", f"measuring the source {spec}")
    from edgeseg.converters.source import SourceOptions, load_source

    return load_source(spec, SourceOptions(**options))


def source_candidates(source: Source, threads: int | None) -> list[Candidate]:
    """A source in torch: eager, and fused channels-last where it can be fused."""
    from edgeseg.converters.baseline import torch_baselines

    runs = torch_baselines(source, threads)
    return [Candidate(Row("torch", "fp32", name, "cpu", threads), run, source.preprocess) for name, run in runs.items()]
