"""Bundle + session + preprocessing: a frame in, its segmentation out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from edgeseg import plugins
from edgeseg.bundle import open_bundle
from edgeseg.engine_options import Plan, with_options
from edgeseg.errors import BadInput, EdgesegError, InferenceError, SelfTestFailed
from edgeseg.evidence import Execution
from edgeseg.preprocess import InputPlan, MaskPlan, area_of, check_frame, to_confidence, to_input, to_mask
from edgeseg.runtimes.choice import Candidate, candidates, fastest
from edgeseg.runtimes.sandbox import Limits
from edgeseg.trust import Keys
from edgeseg.types import Array, Artifact, Box, Bundle, Layout, Logits, Mask, Precision, Preprocess

if TYPE_CHECKING:
    from edgeseg.measure import Contour, Measurement


# Neither is a frozen dataclass: to make one of each takes 2 us, which is 1 % of a fast engine's time.
class Timing(NamedTuple):
    """How long the parts of one call took, in ms."""

    preprocess: float
    infer: float
    postprocess: float

    @property
    def total(self) -> float:
        """All three."""
        return self.preprocess + self.infer + self.postprocess


@dataclass(slots=True, eq=False)
class Segmentation:
    """What a segmenter makes of a frame; its arrays are the caller's, no later call changes them.

    Attributes:
        mask: [H, W] uint8 class indices at the frame's own size; 0 is the background.
        timing: of this call.
        area: where in the frame the network looked; None for all of it.
        confidence: [K, H, W] float32 probabilities of the classes, the background first: they sum to 1, and the
            largest is the mask's class. None where it was not asked for.
        classes: class names; index 0 is the background.
    """

    mask: Mask
    timing: Timing
    area: Box | None
    confidence: Logits | None
    classes: tuple[str, ...]
    _execution: Callable[[], Execution] = field(repr=False)

    @property
    def execution(self) -> Execution:
        """What the engine really ran. Found out once per segmenter, which has to be open the first time."""
        return self._execution()

    def measure(self, pixel_size_mm: float | None = None) -> list[Measurement]:
        """Area and circumference of each class but the background: see `edgeseg.measure.measure`.

        Args:
            pixel_size_mm: edge of a square pixel; None where unknown, and then there is nothing in mm.
        """
        from edgeseg.measure import measure

        return measure(self.mask, self.classes, pixel_size_mm)

    def contours(self) -> list[list[Contour]]:
        """The outlines of each class but the background, [N, 2] int32 as (x, y): see `edgeseg.measure.contours`."""
        from edgeseg.measure import contours

        return contours(self.mask, self.classes)


@runtime_checkable
class Abortable(Protocol):
    """A session whose engine can be ended from another thread."""

    def abort(self) -> None:
        """End it; a run that waits for it raises EngineCrashed."""


class Segmenter:
    """One artifact of a bundle, loaded: a callable and a context manager, used by one thread at a time.

    A call by a second thread at the same moment raises; nothing is ever mixed up. `close` may come from any thread: a
    call that is running ends as usual and frees the engine then.

    Attributes:
        artifact: the artifact that runs.
        runtime: the name of the runtime it runs on.
        device: the device it runs on.
        classes: class names; index 0 is the background.
        preprocess: what happens to a frame before the network.
        skipped: candidates that could not be used, each with the reason.
    """

    def __init__(self, bundle: Bundle, candidate: Candidate, skipped: Mapping[str, str]) -> None:
        self.artifact: Artifact = candidate.artifact
        self.runtime = candidate.runtime
        self.device = candidate.session.device
        self.classes = bundle.classes
        self.preprocess = bundle.preprocess
        self.skipped = dict(skipped)
        self._session = candidate.session
        self._input = candidate.session.inputs[0]
        self._output = candidate.session.outputs[0]
        self._planned: tuple[tuple[tuple[int, ...], Box | None], InputPlan, MaskPlan] | None = None
        self._lock = Lock()
        self._closed = False

    def __call__(self, frame: Array, *, area: Box | None = None, confidence: bool = False) -> Segmentation:
        """Segment one frame.

        Args:
            frame: [H, W] gray or [H, W, 3] RGB, uint8, any size.
            area: the part of the frame to look at; None for what the bundle's preprocessing says.
            confidence: whether to give the probability of every class too.

        Raises:
            BadInput: a frame of another dtype or shape, or an area that is not inside it.
            InferenceError: the engine failed, gave values that are not finite or another shape than it should, the
                segmenter is closed, or another thread is using it.
        """
        if not self._lock.acquire(False):
            raise InferenceError(f"{self._name} is in use by another thread: load a segmenter for each thread")
        try:
            return self._segment(frame, area, confidence)
        finally:
            self._lock.release()
            if self._closed:
                self.close()

    def _segment(self, frame: Array, area: Box | None, confidence: bool) -> Segmentation:
        start = perf_counter()
        if area is None and self.preprocess.scan_area is not None:
            area = area_of(frame, self.preprocess)
        feeds = self._session.feeds()
        to_input, to_mask = self._plans(check_frame(frame).shape, area, feeds[self._input.name])
        to_input(frame)
        prepared = perf_counter()
        output = self._session.run(feeds)[self._output.name]
        inferred = perf_counter()
        if output.shape != self._output.shape and -1 not in self._output.shape:
            raise InferenceError(f"{self._name}: the output has shape {output.shape}, expected {self._output.shape}")
        try:
            mask = to_mask(output)
            certainty = to_confidence(output, frame.shape, self._output.layout, area=area) if confidence else None
        except BadInput as error:
            raise InferenceError(f"{self._name}: {error}") from error
        timing = Timing((prepared - start) * 1e3, (inferred - prepared) * 1e3, (perf_counter() - inferred) * 1e3)
        return Segmentation(mask, timing, area, certainty, self.classes, self._executed)

    def _plans(self, shape: tuple[int, ...], area: Box | None, place: Array) -> tuple[InputPlan, MaskPlan]:
        """Those of the frame before, where this one has its shape and area and the engine reads from the same place."""
        if self._planned is None or self._planned[0] != (shape, area) or self._planned[1].out is not place:
            to_input = InputPlan(shape, self.preprocess, self._input.layout, area, place)
            self._planned = (shape, area), to_input, MaskPlan(shape, self._output.layout, area)
        return self._planned[1:]

    @property
    def _name(self) -> str:
        return f"{self.artifact.name} on {self.runtime} {self.device}"

    def _executed(self) -> Execution:
        return self.execution

    @cached_property
    def execution(self) -> Execution:
        """What the engine really runs, from its own records."""
        return self._session.execution()

    def abort(self) -> None:
        """End a call that hangs, from any thread, for good: where the engine has a process of its own. Else nothing."""
        if isinstance(self._session, Abortable):
            self._session.abort()

    def close(self) -> None:
        """Free the engine's memory, once no thread is in a call; calling it twice is allowed."""
        self._closed = True
        if self._lock.acquire(False):
            try:
                self._session.close()
            finally:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def load(
    bundle: Bundle | Path | str,
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: Precision | str | None = None,
    threads: int | None = 1,
    isolate: bool | Limits = False,
    strict: bool = False,
    self_test: bool = False,
    trusted_keys: Keys | None = None,
    options: Mapping[str, Mapping[str, object]] | None = None,
    plan: Plan = (),
) -> Segmenter:
    """Load the best artifact of a bundle.

    Where several artifacts and runtimes are possible they race here, on a golden frame, and the fastest stays. The
    result of a race is remembered for the life of the process. The engine has run once when this returns.

    Args:
        bundle: an opened bundle, or its path.
        runtime: "onnxruntime", "openvino", "litert", "fake", or "auto" for all engines that are installed.
        device: a device of that runtime, or "auto".
        precision: "fp32", "fp16", "int8", or None for whichever is fastest.
        threads: CPU threads; None leaves it to the engine.
        isolate: True, or limits, to run the engine in a process of its own, in a sandbox, on the CPU: what crashes,
            hangs or eats memory there is an error here.
        strict: whether it is an error that the engine uses another device or precision than asked for, or that more
            layers fall back than at conversion.
        self_test: whether to run the golden frames first and compare with what was recorded at conversion; tenths of
            a second.
        trusted_keys: as `open_bundle`; a bundle that is open already is opened again.
        options: what else to tell engines, by runtime, as in {"onnxruntime": {"tensorrt_fp16": True}}: see
            `edgeseg.engine_options.OPTIONS`.
        plan: engines worth trying, best first, as `edgeseg.boards.profile.Profile.plan`. Then there is no race: the
            first one that loads stays, and its number of threads counts before `threads`.

    Raises:
        BadInput: an unknown runtime, precision or option, or nothing in the bundle that fits them.
        BundleError: `bundle` is a path and not an intact bundle, or not signed by a trusted key (SignatureError).
        MissingDependency: the engine of the runtime asked for is not installed.
        NoSuchDevice: no runtime has the device, or it does not work here.
        ExecutionMismatch: `strict`, and every artifact ran otherwise than asked for.
        SelfTestFailed: `self_test`, and the artifact does not do here what it did at conversion.
        InferenceError: nothing could be loaded; the reasons are in the message.
    """
    if runtime != "auto" and runtime not in plugins.RUNTIMES:
        raise BadInput(f"unknown runtime {runtime!r}, expected auto or one of {', '.join(plugins.RUNTIMES)}")
    opened = _opened(bundle, trusted_keys)
    wanted = _precision(precision)
    told = with_options(plan, options or {})
    possible = candidates(opened, runtime, wanted, told)
    winner, skipped = fastest(
        opened, possible, device=device, threads=threads, isolate=isolate, strict=strict, ordered=bool(plan)
    )
    try:
        _check_specs(winner, opened.preprocess)
        _warm_up(winner, opened.preprocess)
        if self_test:
            _self_test(opened, winner)
    except EdgesegError:
        winner.session.close()
        raise
    return Segmenter(opened, winner, skipped)


def _opened(bundle: Bundle | Path | str, trusted_keys: Keys | None) -> Bundle:
    if isinstance(bundle, Bundle):
        # Opened without these keys, so that nobody has vouched for it yet.
        return bundle if trusted_keys is None else open_bundle(bundle.path, trusted_keys=trusted_keys)
    return open_bundle(bundle, trusted_keys=trusted_keys)


def _precision(precision: Precision | str | None) -> Precision | None:
    try:
        return None if precision is None else Precision(precision)
    except ValueError:
        raise BadInput(f"unknown precision {precision!r}, expected one of {', '.join(Precision)} or None") from None


def _self_test(bundle: Bundle, winner: Candidate) -> None:
    from edgeseg.self_test import read_expected, self_test

    expected = read_expected(bundle)
    if not expected:
        raise SelfTestFailed(f"{bundle.path.name} has no golden frames to test itself with: convert the model again")
    result = self_test(bundle, winner.artifact, winner.runtime, winner.session, expected)
    if result.reasons:
        where = f"{winner.artifact.name} on {winner.runtime} {winner.session.device}"
        raise SelfTestFailed(f"{where} failed its self-test: {'; '.join(result.reasons)}")


def _warm_up(winner: Candidate, preprocess: Preprocess) -> None:
    """Run once on a black frame of another size than the network's, so that the first real one takes no longer."""
    session = winner.session
    source, sink, feeds = session.inputs[0], session.outputs[0], session.feeds()
    frame = np.zeros((2 * preprocess.height, 2 * preprocess.width), np.uint8)
    everything = Box(0, 0, frame.shape[1], frame.shape[0])
    to_input(frame, preprocess, source.layout, area=everything, out=feeds[source.name])
    output = session.run(feeds)[sink.name]
    with suppress(BadInput):  # what a frame's output has to be is for a call to say
        to_mask(output, frame.shape, sink.layout)


def _check_specs(candidate: Candidate, preprocess: Preprocess) -> None:
    """Raise InferenceError where the model is not one image in, with the size that the bundle says."""
    inputs, name = candidate.session.inputs, candidate.artifact.name
    if len(inputs) != 1 or not candidate.session.outputs:
        raise InferenceError(f"{name} has {len(inputs)} inputs, expected one image and at least one output of logits")
    height, width, channels = preprocess.height, preprocess.width, preprocess.channels
    planar = inputs[0].layout is Layout.NCHW
    expected = (1, channels, height, width) if planar else (1, height, width, channels)
    if inputs[0].shape != expected:
        raise InferenceError(f"{name} takes {inputs[0].shape}, the bundle's preprocessing gives {expected}")
