"""Which artifact on which runtime: what fits is loaded, what loads races, the fastest stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from edgeseg import plugins
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

Pairing = tuple[str, Artifact]  # the name of a runtime, and what it is to run
Failures = dict[str, InferenceError | MissingDependency]
_decided: dict[tuple[object, ...], tuple[Pairing, dict[str, str]]] = {}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact, loaded on a runtime."""

    runtime: str
    artifact: Artifact
    session: Session

    @property
    def name(self) -> str:
        """As in `openvino-int8 on openvino`."""
        return _name((self.runtime, self.artifact))


def candidates(bundle: Bundle, runtime: str, precision: Precision | None) -> tuple[Pairing, ...]:
    """All pairings of a runtime with an artifact it can read; no engine is imported for it.

    Args:
        bundle: whose artifacts.
        runtime: a name, or "auto" for every engine (never the fake one).
        precision: of the artifacts, None for all.

    Raises:
        BadInput: nothing fits.
    """
    names = plugins.ENGINES if runtime == "auto" else (runtime,)
    fitting = [artifact for artifact in bundle.artifacts if precision in (None, artifact.precision)]
    found = tuple((name, a) for name in names for a in fitting if a.format in plugins.runtime(name).formats)
    if not found:
        wanted = f"{precision} artifact" if precision else "artifact"
        there = ", ".join(artifact.name for artifact in bundle.artifacts) or "nothing"
        raise BadInput(f"{bundle.path.name} has no {wanted} for runtime {runtime}, it has {there}")
    # The fake runtime is equally fast at everything.
    return found[:1] if runtime == "fake" else found


def fastest(
    bundle: Bundle,
    pairings: Sequence[Pairing],
    *,
    device: str,
    threads: int | None,
    isolate: bool | Limits = False,
    strict: bool = False,
) -> tuple[Candidate, dict[str, str]]:
    """Load all pairings, race them and keep the winner; the others are closed.

    Returns:
        The winner, and the reason of each pairing that could not be used.

    Raises:
        MissingDependency, NoSuchDevice, ExecutionMismatch: what stopped every pairing, where it is the same for all.
        InferenceError: none could be used, with the reasons.
    """
    names = tuple(_name(pairing) for pairing in pairings)
    key = (bundle.path, bundle.manifest.digest, names, device, threads, isolate, strict)
    decided, skipped = _decided.get(key, (None, {}))
    loaded, errors = _load(bundle, [decided] if decided else pairings, device, threads, isolate, strict)
    try:
        winner = loaded[0] if len(loaded) == 1 else _race(loaded, bundle, errors)
    except BaseException:
        _close(loaded)
        raise
    if winner is None:
        raise _all_failed(bundle, errors)
    _close(loser for loser in loaded if loser is not winner)
    skipped = skipped or {name: str(error) for name, error in errors.items()}
    _decided[key] = ((winner.runtime, winner.artifact), skipped)
    return winner, skipped


def _load(
    bundle: Bundle,
    pairings: Sequence[Pairing],
    device: str,
    threads: int | None,
    isolate: bool | Limits,
    strict: bool,
) -> tuple[list[Candidate], Failures]:
    loaded: list[Candidate] = []
    errors: Failures = {}
    for name, artifact in pairings:
        try:
            session = open_session(
                bundle, artifact, name, device=device, threads=threads, isolate=isolate, strict=strict
            )
        except (InferenceError, MissingDependency) as error:
            errors[_name((name, artifact))] = error
        except BaseException:
            _close(loaded)
            raise
        else:
            loaded.append(Candidate(name, artifact, session))
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


def _name(pairing: Pairing) -> str:
    runtime, artifact = pairing
    return f"{artifact.name} on {runtime}"
