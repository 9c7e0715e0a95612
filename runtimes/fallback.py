"""The chain of segmenters that a stream falls back along: each one loaded and tested before it is needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from edgeseg import plugins
from edgeseg.bundle import open_bundle
from edgeseg.engine_options import Plan
from edgeseg.errors import BadInput, InferenceError, MissingDependency
from edgeseg.golden import read_frame
from edgeseg.runtimes.sandbox import Limits
from edgeseg.runtimes.segmenter import Segmenter, load
from edgeseg.trust import Keys
from edgeseg.types import Bundle, Frame, Precision

_ROUNDS, _WARM_UPS = 7, 2
_MID_GRAY = 128

log = logging.getLogger("edgeseg.stream")


@dataclass(frozen=True, slots=True)
class _Loader:
    """How the segmenters of a chain are loaded."""

    bundle: Bundle
    threads: int | None
    isolate: bool | Limits
    self_test: bool
    plan: Plan

    def __call__(self, runtime: str = "auto", precision: str | None = None, device: str = "auto") -> Segmenter:
        return load(
            self.bundle,
            runtime=runtime,
            device=device,
            precision=precision,
            threads=self.threads,
            isolate=self.isolate,
            self_test=self.self_test,
            plan=self.plan,
        )


def load_chain(
    bundle: Bundle | Path | str,
    links: Sequence[str] = (),
    *,
    threads: int | None = 1,
    isolate: bool | Limits = False,
    self_test: bool = True,
    trusted_keys: Keys | None = None,
    plan: Plan = (),
) -> tuple[Segmenter, ...]:
    """Load the segmenters that a stream may need, the first choice first; the caller closes them.

    Args:
        bundle: an opened bundle, or its path.
        links: "RUNTIME[:PRECISION[:DEVICE]]" of each, as in "openvino:int8" or "litert:fp32:cpu"; what is left out
            is the fastest. Empty for a chain of what there is: the fastest artifact of every engine that is installed
            here, in the order of their speed, and then the fastest fp32 one where all of these have less.
        threads: CPU threads of each; None leaves it to the engine.
        isolate: as `load`; each segmenter has a process of its own then.
        self_test: whether each has to pass the golden frames. What fails is an error where it was asked for by name;
            else it is left out, with a warning in the log and the reason in `skipped` of the first segmenter.
        trusted_keys: as `open_bundle`.
        plan: as `load`; without links it is the order of the chain too.

    Raises:
        BadInput: a link that is none.
        SelfTestFailed, InferenceError, MissingDependency, NoSuchDevice: as `load`, for a link; or where nothing is
            left of a chain of what there is.
        BundleError: as `open_bundle`.
    """
    if not isinstance(bundle, Bundle) or trusted_keys is not None:
        path = bundle.path if isinstance(bundle, Bundle) else bundle
        bundle = open_bundle(path, trusted_keys=trusted_keys)
    loader = _Loader(bundle, threads, isolate, self_test, plan)
    with ExitStack() as stack:
        if links:
            wanted = [_parsed(link) for link in links]
            chain = [stack.enter_context(loader(*link)) for link in wanted]
        else:
            chain = _whatever_runs(loader, stack)
        stack.pop_all()
    return tuple(chain)


def _parsed(link: str) -> tuple[str, str | None, str]:
    runtime, precision, device = (*link.split(":", 2), "", "")[:3]
    if runtime not in plugins.RUNTIMES:
        raise BadInput(f"unknown runtime {runtime!r} in link {link!r}, expected one of {', '.join(plugins.RUNTIMES)}")
    if precision and precision not in tuple(Precision):
        raise BadInput(f"unknown precision {precision!r} in link {link!r}, expected one of {', '.join(Precision)}")
    return runtime, precision or None, device or "auto"


def _whatever_runs(loader: _Loader, stack: ExitStack) -> list[Segmenter]:
    skipped: dict[str, str] = {}
    missing: dict[str, str] = {}
    readers = {plugins.ENGINE_OF[artifact.format] for artifact in loader.bundle.artifacts}
    chain: list[Segmenter] = []
    for name in [choice.runtime for choice in loader.plan] or plugins.ENGINES:
        try:
            chain += _try(loader, stack, name, skipped) if name in readers else []
        except MissingDependency as error:
            missing[name] = str(error)
    chain = chain if loader.plan else _by_speed(chain, loader.bundle)
    if not chain:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in (missing | skipped).items())
        raise InferenceError(f"nothing of {loader.bundle.path.name} runs here as it should ({reasons})")
    if all(segmenter.artifact.precision is not Precision.FP32 for segmenter in chain):
        with suppress(MissingDependency):
            chain += _try(loader, stack, "auto", skipped, Precision.FP32)
    for name, reason in skipped.items():
        log.warning("%s is left out of the chain: %s", name, reason)
    chain[0].skipped.update(skipped)
    return chain


def _try(
    loader: _Loader, stack: ExitStack, runtime: str, skipped: dict[str, str], precision: Precision | None = None
) -> list[Segmenter]:
    """The fastest artifact of a runtime; where that fails its test, another one that passes; none where none does."""
    own = {str(a.precision) for a in loader.bundle.artifacts if plugins.ENGINE_OF[a.format] == runtime}
    for choice in (precision, *([] if precision else sorted(own, reverse=True))):
        try:
            return [stack.enter_context(loader(runtime, choice))]
        except InferenceError as error:
            skipped[f"{runtime}:{choice}" if choice else runtime] = str(error)
    return []


def _by_speed(segmenters: Sequence[Segmenter], bundle: Bundle) -> list[Segmenter]:
    """The fastest first; rounds are interleaved, so that drift hits all alike."""
    frame = _frame(bundle)
    times: dict[int, list[float]] = {index: [] for index in range(len(segmenters))}
    for _ in range(_WARM_UPS + _ROUNDS):
        for index, segmenter in enumerate(segmenters):
            times[index].append(segmenter(frame).timing.infer)
    order = sorted(times, key=lambda index: median(times[index][_WARM_UPS:]))
    return [segmenters[index] for index in order]


def _frame(bundle: Bundle) -> Frame:
    if bundle.manifest.golden:
        return read_frame(bundle.manifest.golden[0])
    return np.full((bundle.preprocess.height, bundle.preprocess.width), _MID_GRAY, np.uint8)
