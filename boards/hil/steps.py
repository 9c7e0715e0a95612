"""The steps of a bundle on a board: what is run there, and what is said of the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import msgspec

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.boards.sampler import Summary, joined
from edgeseg.errors import BoardError

VERIFY, WARM_UP, BENCH, SOAK = "verify", "warm-up", "bench", "soak"
MEASURED = (VERIFY, WARM_UP, BENCH, SOAK)


@dataclass(frozen=True, slots=True)
class Job:
    """One command of a step.

    Attributes:
        step: that it is of.
        words: of edgeseg's command line.
        timeout_s: on the board.
        files: on the board, that it writes: its result, then raw samples if there are any.
    """

    step: str
    words: tuple[str, ...]
    timeout_s: float
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle is on a board.

    Attributes:
        folder: of this bundle in this run; all of it goes when the bundle is done.
        bundle: installed.
        keys: folder of the public keys that it must be signed with; "" for none.
    """

    folder: str
    bundle: str
    keys: str = ""

    @property
    def trust(self) -> tuple[str, ...]:
        """Options of edgeseg."""
        return ("--key", self.keys) if self.keys else ()


def verify_job(place: Place, engines: Sequence[str], measures: Measures, profile: str = "") -> Job:
    """Run the golden frames on every artifact, as a profile of that name says."""
    result = f"{place.folder}/verify.json"
    words = ("verify", place.bundle, *place.trust, *_runtimes(engines), *_how(measures, profile))
    return Job(VERIFY, (*words, "--json", result), measures.timeout_s, (result,))


def bench_job(
    place: Place, engines: Sequence[str], measures: Measures, profile: str = "", *, warm_up: bool = False
) -> Job:
    """Measure every artifact; or do it in short, so that files are in memory and clocks are up when it counts."""
    step = WARM_UP if warm_up else BENCH
    result, samples = f"{place.folder}/{step}.json", f"{place.folder}/{step}.samples.json"
    rounds = measures.warm_up_rounds if warm_up else measures.bench_rounds
    words = ("bench", place.bundle, *_runtimes(engines), *_how(measures, profile), "--rounds", str(rounds))
    more = ("--repeats", str(measures.bench_repeats), "--json", result)
    files = (result,) if warm_up else (result, samples)
    return Job(step, (*words, *more, *(() if warm_up else ("--samples", samples))), measures.timeout_s, files)


def soak_job(
    place: Place, frame: str, row: dict[str, Any], measures: Measures, limits: Limits, profile: str = ""
) -> Job:
    """Stream a golden frame through the fastest artifact."""
    result = f"{place.folder}/soak.json"
    link = f"{row['runtime']}:{row['precision']}:{row['device']}"
    words = ["soak", place.bundle, f"{place.bundle}/{frame}", *place.trust, "--link", link]
    words += [*_how(measures, profile), "--minutes", f"{measures.soak_minutes:g}"]
    words += ["--fps", f"{measures.soak_fps:g}", "--max-missed", str(limits.soak_missed)]
    words += ["--max-dropped", str(limits.soak_missed), "--max-drift", f"{limits.soak_drift_mib:g}"]
    if limits.soak_p999_ms is not None:
        words += ["--max-p999", f"{limits.soak_p999_ms:g}"]
    if measures.soak_deadline_ms is not None:
        words += ["--deadline", f"{measures.soak_deadline_ms:g}"]
    timeout_s = measures.timeout_s + 60 * 2 * measures.soak_minutes
    return Job(SOAK, (*words, "--json", result), timeout_s, (result,))


def result_of(job: Job, files: dict[str, str | None]) -> tuple[dict[str, Any] | None, Any]:
    """The result and the raw samples that a command wrote; None for what it did not write.

    Raises BoardError where it wrote something else than JSON.
    """
    found: list[Any] = []
    for path in job.files:
        text = files.get(path)
        try:
            found.append(None if text is None else msgspec.json.decode(text))
        except msgspec.DecodeError as error:
            raise BoardError(f"{path} on the board is not JSON: {error}") from error
    if found[0] is not None and not isinstance(found[0], dict):
        raise BoardError(f"{job.files[0]} on the board is not the result of `edgeseg {job.words[0]}`")
    return found[0], found[1] if len(found) > 1 else None


def joined_results(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The results of one step that was done for one engine after the other: all rows, and telemetry of all of it.

    Raises BoardError where the telemetry is none.
    """
    result = {**first, "rows": [*first["rows"], *second["rows"]]}
    try:
        told = [msgspec.convert(part["telemetry"], Summary) for part in (first, second) if part.get("telemetry")]
    except msgspec.ValidationError as error:
        raise BoardError(f"the telemetry of `edgeseg bench` on the board is not understood: {error}") from error
    if told:
        result["telemetry"] = msgspec.to_builtins(reduce(joined, told))
    return result


def fastest(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the artifact that a device would run: the smallest median of those that passed."""
    timed = [row for row in rows if row.get("p50_ms") is not None and row.get("passed") is not False]
    return min(timed, key=lambda row: float(row["p50_ms"]), default=None)


def judge_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What failed in the rows of verify or bench, as sentences."""
    return [f"{_name(row)}: {row.get('reason')}" for row in rows if row.get("passed") is False]


def judge_bench(rows: Sequence[dict[str, Any]], limits: Limits) -> list[str]:
    """What is beyond the limits of the environment, as sentences."""
    row = fastest(rows)
    if row is None:
        return ["no artifact was measured"]
    checks = (
        ("p99", row.get("p99_ms"), limits.p99_ms, "ms", True),
        ("frames a second", row.get("fps"), limits.fps, "", False),
        ("Dice against the source", row.get("dice_source"), limits.dice, "", False),
        ("peak memory", row.get("peak_memory_mb"), limits.memory_mb, "MB", True),
    )
    return [f"{_name(row)}: {said}" for check in checks if (said := _beyond(*check))]


def judge_soak(result: dict[str, Any], limits: Limits) -> list[str]:
    """What a soak was failed for, as sentences."""
    failed = [
        f"{limit['name']} {limit['measured']:.4g} {limit['unit']}".rstrip() + f", expected at most {limit['asked']:g}"
        for limit in result.get("limits", ())
        if limit["passed"] is False
    ]
    if result.get("reason"):
        failed.append(str(result["reason"]))
    if said := _beyond("temperature", hottest(result), limits.temperature_c, "°C", True):
        failed.append(said)
    return failed


def hottest(result: dict[str, Any]) -> float | None:
    """The highest temperature in a soak, °C; None where it was not measured."""
    return max((w["temperature_c"] for w in result.get("windows", ()) if w.get("temperature_c")), default=None)


def _beyond(name: str, value: Any, limit: float | None, unit: str, most: bool) -> str:
    if limit is None:
        return ""
    bound = f"{'at most' if most else 'at least'} {limit:g} {unit}".rstrip()
    if value is None:
        return f"{name} was not measured, expected {bound}"
    good = value <= limit if most else value >= limit
    return "" if good else f"{name} {value:.4g} {unit}".rstrip() + f", expected {bound}"


def _name(row: dict[str, Any]) -> str:
    return f"{row.get('format')}-{row.get('precision')} on {row.get('runtime')}"


def _how(measures: Measures, profile: str) -> tuple[str, ...]:
    threads = measures.threads or (None if profile else 1)
    named = ("--profile", profile) if profile else ()
    return named if threads is None else (*named, "--threads", str(threads))


def _runtimes(engines: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for engine in engines for word in ("--runtime", engine))
