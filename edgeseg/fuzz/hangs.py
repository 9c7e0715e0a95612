"""Models without end in isolated engines: each must be ended within a second after its deadline."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from edgeseg.errors import EngineTimeout, InferenceError
from edgeseg.fuzz.corpus_models import endless_models
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.runtimes.isolated import IsolatedWorker
from edgeseg.runtimes.sandbox import Limits
from edgeseg.types import Format, Model

LIMITS = Limits(memory_mb=512, load_s=3.0, run_s=2.0)
LATEST_S = 1.0


def try_hangs(count: int, advance: Callable[[], None]) -> Outcomes:
    """Run `count` endless models; `longest_s` of the row is the longest time that one went on after its deadline."""
    outcomes = Outcomes("hangs", "onnx")
    models = tuple(endless_models().items())
    for index in range(count):
        name, data = models[index % len(models)]
        late = _late(Model(name, Format.ONNX, (data,)))
        if late is None:
            outcomes.add("no timeout", 0.0, f"{name}: ended by itself, or as another error")
        else:
            outcomes.add("ended", late, f"{name}: went on for {late:.2f} s" if late > LATEST_S else None)
        advance()
    return outcomes


def _late(model: Model) -> float | None:
    """Seconds from the deadline of a run to the typed error; None where it did not come to that."""
    with IsolatedWorker("onnxruntime", LIMITS) as worker, worker.load(model, threads=1) as session:
        spec = session.inputs[0]
        feeds = {spec.name: np.ones(spec.shape, np.float32)}
        start = perf_counter()
        try:
            session.run(feeds)
        except EngineTimeout:
            return perf_counter() - start - LIMITS.run_s
        except InferenceError:
            return None
    return None
