"""Which artifact on which runtime: what fits is loaded, what loads races, the fastest stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from edgeseg import plugins
from edgeseg.engine_options import EngineChoice, Plan
from edgeseg.errors import BadInput, ExecutionMismatch, InferenceError, MissingDependency, NoSuchDevice
from edgeseg.golden import read_frame
from edgeseg.preprocess import to_input
from edgeseg.runtimes.opening import open_session
from edgeseg.runtimes.sandbox import Limits
from edgeseg.types import Artifact, Bundle, Layout, Precision, Session

_WARM_UPS = 2
_ROUNDS = 7
_HOPELESS = 1.5  # times the smallest time of all, by one's own smallest
_MID_GRAY = 128

Failures = dict[str, InferenceError | MissingDependency]


@dataclass(frozen=True, slots=True)
class Pairing:
    """A runtime, what it is to run, and how."""

    runtime: str
    artifact: Artifact
    choice: EngineChoice

    @property
    def name(self) -> str:
        """As in `openvino-int8 on openvino`."""
        return f"{self.artifact.name} on {self.runtime}"


_decided: dict[tuple[object, ...], tuple[Pairing, dict[str, str]]] = {}


@dataclass(frozen=True, slots=True)
class Candidate(Pairing):
    """A pairing that is loaded."""

    session: Session


def candidates(bundle: Bundle, runtime: str, precision: Precision | None, plan: Plan = ()) -> tuple[Pairing, ...]:
    """All pairings of a runtime with an artifact it can read, in the order of the plan; no engine is imported for it.

    Args:
        bundle: whose artifacts.
        runtime: a name, or "auto" for every engine of the plan; without one for every engine (never the fake one).
        precision: of the artifacts, None for those of the plan; without one for all.
        plan: what is worth trying, best first.

    Raises:
        BadInput: nothing fits.
    """
    known = plan or [EngineChoice(name) for name in plugins.ENGINES]
    choices = [c for c in known if runtime in ("auto", c.runtime)] or [EngineChoice(runtime)]
    found = tuple(Pairing(c.runtime, a, c) for c in choices for a in fitting(bundle, c, precision))
    if not found:
        wanted = f"{precision} artifact" if precision else "artifact"
        there = ", ".join(artifact.name for artifact in bundle.artifacts) or "nothing"
        raise BadInput(f"{bundle.path.name} has no {wanted} for runtime {runtime}, it has {there}")
    # The fake runtime is equally fast at everything.
    return found[:1] if runtime == "fake" else found


def fitting(bundle: Bundle, choice: EngineChoice, precision: Precision | None = None) -> list[Artifact]:
    """The artifacts that a runtime reads, of one precision, else of those that its choice names, in that order."""
    formats = plugins.runtime(choice.runtime).formats
    readable = [artifact for artifact in bundle.artifacts if artifact.format in formats]
    if precision is None and choice.precisions:
        return [artifact for name in choice.precisions for artifact in readable if artifact.precision == name]
    return [artifact for artifact in readable if precision in (None, artifact.precision)]


def fastest(
    bundle: Bundle,
    pairings: Sequence[Pairing],
    *,
    device: str,
    threads: int | None,
    isolate: bool | Limits = False,
    strict: bool = False,
    ordered: bool = False,
) -> tuple[Candidate, dict[str, str]]:
    """Load all pairings, race them and keep the winner; the others are closed.

    Args:
        bundle: whose artifacts.
        pairings: to choose from.
        device, threads, isolate, strict: as `open_session`.
        ordered: whether the first one that loads is the winner, without a race.

    Returns:
        The winner, and the reason of each pairing that could not be used.

    Raises:
        MissingDependency, NoSuchDevice, ExecutionMismatch: what stopped every pairing, where it is the same for all.
        InferenceError: none could be used, with the reasons.
    """
    told_apart = tuple((pairing.name, pairing.choice) for pairing in pairings)
    key = (bundle.path, bundle.manifest.digest, told_apart, device, threads, isolate, strict, ordered)
    decided, skipped = _decided.get(key, (None, {}))
    told = {"device": device, "threads": threads, "isolate": isolate, "strict": strict}
    loaded, errors = _load(bundle, [decided] if decided else pairings, told, first=ordered)
    try:
        winner = loaded[0] if len(loaded) == 1 else _race(loaded, bundle, errors)
    except BaseException:
        _close(loaded)
        raise
    if winner is None:
        raise _all_failed(bundle, errors)
    _close(loser for loser in loaded if loser is not winner)
    skipped = skipped or {name: str(error) for name, error in errors.items()}
    _decided[key] = Pairing(winner.runtime, winner.artifact, winner.choice), skipped
    return winner, skipped


def _load(
    bundle: Bundle, pairings: Sequence[Pairing], told: dict[str, Any], *, first: bool
) -> tuple[list[Candidate], Failures]:
    """Whatever loads, or only the first that does."""
    loaded: list[Candidate] = []
    errors: Failures = {}
    for pairing in pairings:
        try:
            session = open_session(bundle, pairing.artifact, pairing.runtime, **told, choice=pairing.choice)
        except (InferenceError, MissingDependency) as error:
            errors[pairing.name] = error
        except BaseException:
            _close(loaded)
            raise
        else:
            loaded.append(Candidate(pairing.runtime, pairing.artifact, pairing.choice, session))
            if first:
                break
    return loaded, errors


def _race(loaded: Sequence[Candidate], bundle: Bundle, errors: Failures) -> Candidate | None:
    """The candidate with the smallest median; rounds are interleaved, so that drift hits all alike.

    Who never came near the fastest is not waited for in every round.
    """
    frame = _frame(bundle)
    inputs = {layout: to_input(frame, bundle.preprocess, layout) for layout in Layout}
    times: dict[str, list[float]] = {candidate.name: [] for candidate in loaded}
    running = list(loaded)
    for number in range(_WARM_UPS + _ROUNDS):
        for candidate in running:
            spec = candidate.session.inputs[0]
            try:
                start = perf_counter()
                candidate.session.run({spec.name: inputs[spec.layout]})
                times[candidate.name].append(perf_counter() - start)
            except InferenceError as error:
                errors[candidate.name] = error
        running = [candidate for candidate in running if candidate.name not in errors]
        if number >= _WARM_UPS:
            limit = _HOPELESS * min((min(times[c.name]) for c in running), default=0.0)
            running = [candidate for candidate in running if min(times[candidate.name]) <= limit]
    return min(running, key=lambda c: median(times[c.name][_WARM_UPS:]), default=None)


def _frame(bundle: Bundle) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if bundle.manifest.golden:
        return read_frame(bundle.manifest.golden[0])
    return np.full((bundle.preprocess.height, bundle.preprocess.width), _MID_GRAY, np.uint8)


def _all_failed(bundle: Bundle, errors: Failures) -> InferenceError | MissingDependency:
    kinds = {type(error) for error in errors.values()}
    first = next(iter(errors.values()))
    if len({str(error) for error in errors.values()}) == 1:
        return first
    reasons = "; ".join(f"{name}: {error}" for name, error in errors.items())
    same = (kind for kind in (NoSuchDevice, ExecutionMismatch) if kinds == {kind})
    kind = next(same, InferenceError)
    return kind(f"no artifact of {bundle.path.name} can run here ({reasons})")


def _close(losers: Iterable[Candidate]) -> None:
    for candidate in losers:
        candidate.session.close()
