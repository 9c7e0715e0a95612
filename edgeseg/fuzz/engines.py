"""Mutated models with nobody checking hashes, in isolated engines: whatever they do, the host process goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from edgeseg.bundle import read_model
from edgeseg.errors import EdgesegError, EngineCrashed, EngineTimeout
from edgeseg.fuzz.mutations import Kind, mutation
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.workbench import Workbench
from edgeseg.plugins import ENGINE_OF
from edgeseg.runtimes.isolated import IsolatedWorker
from edgeseg.runtimes.sandbox import Limits
from edgeseg.types import Array, Format, Model

LIMITS = Limits(memory_mb=512, load_s=10.0, run_s=5.0)
LONGEST_S = 20.0
# Which file of an artifact is mutated.
PARTS = {
    Kind.ONNX: (Format.ONNX, 0),
    Kind.XML: (Format.OPENVINO, 0),
    Kind.BIN: (Format.OPENVINO, 1),
    Kind.TFLITE: (Format.TFLITE, 0),
}
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class _Subject:
    """A sound model, what it is fed and what comes out."""

    model: Model
    feeds: Mapping[str, Array]
    outputs: tuple[Array, ...]


def try_engine(bench: Workbench, kind: Kind, count: int, seed: int, advance: Callable[[], None]) -> Outcomes:
    """Load and run `count` mutations of the models of one kind, each within LIMITS.

    A typed error or a result is what must come of each, within LONGEST_S; a crash or timeout of the engine's own
    process is counted, and is a typed error here. That this process lives on is proven by the row that it prints.

    Raises:
        MissingDependency: the engine is not installed.
        InferenceError: it does not run the sound models.
    """
    format, part = PARTS[kind]
    name = ENGINE_OF[format]
    outcomes = Outcomes("engines", kind)
    worker = IsolatedWorker(name, LIMITS)
    try:
        models = [read_model(a) for a in bench.bundle.artifacts if a.format is format]
        subjects = [_subject(worker, m) for m in models]
        outcomes.notes["sandbox"] = list(worker.sandbox)
        for index in range(count):
            if not worker.alive:
                worker.close()
                worker = IsolatedWorker(name, LIMITS)
            subject = subjects[index % len(subjects)]
            made = mutation(kind, subject.model.files[part], seed, index)
            start = perf_counter()
            outcome, miss = _try(worker, subject, _with_part(subject.model, part, made.data))
            seconds = perf_counter() - start
            where = f"{subject.model.name}, seed {seed}, mutation {index} ({made.what})"
            if miss is None and seconds > LONGEST_S:
                miss = f"took {seconds:.1f} s"
            outcomes.add(outcome, seconds, miss and f"{where}: {miss}")
            if outcome.startswith("child"):
                outcomes.notes.setdefault(outcome, []).append(where)
            advance()
    finally:
        worker.close()
    return outcomes


def _with_part(model: Model, part: int, data: bytes) -> Model:
    files = tuple(data if index == part else file for index, file in enumerate(model.files))
    return Model(model.name, model.format, files)


def _subject(worker: IsolatedWorker, model: Model) -> _Subject:
    rng = np.random.default_rng(0)
    with worker.load(Model(model.name, model.format, model.files), threads=1) as session:
        feeds = {s.name: rng.uniform(0, 255, s.shape).astype(s.dtype) for s in session.inputs}
        outputs = tuple(np.array(a) for a in session.run(feeds).values())
    return _Subject(model, feeds, outputs)


def _try(worker: IsolatedWorker, subject: _Subject, model: Model) -> tuple[str, str | None]:
    """What came of it, and why it may not."""
    try:
        with worker.load(model, threads=1) as session:
            found = tuple(session.run(subject.feeds).values())
    except EngineTimeout:
        return "child timed out", None
    except EngineCrashed:
        return "child crashed", None
    except EdgesegError:
        return "typed error", None
    except Exception as error:
        return "untyped error", f"{type(error).__name__}: {error}"[:_SHOWN]
    same = len(found) == len(subject.outputs) and all(map(np.array_equal, found, subject.outputs))
    return ("ran, same result" if same else "ran, other result"), None


def available(bench: Workbench) -> tuple[Kind, ...]:
    """The kinds of model files that the bundle has."""
    return tuple(kind for kind in PARTS if bench.files.get(kind))
