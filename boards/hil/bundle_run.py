"""One bundle on one board: deploy, verify, warm up, bench, soak, collect; every result on record as it comes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.boards.hil.bundles import Candidate
from edgeseg.boards.hil.connection import Connection, error_line
from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.boards.hil.facts import BoardFacts, run_folder
from edgeseg.boards.hil.fitness import Fitness, check_fitness
from edgeseg.boards.hil.station import Done, Station
from edgeseg.boards.hil.steps import (
    BENCH,
    SOAK,
    VERIFY,
    WARM_UP,
    Job,
    Place,
    bench_job,
    fastest,
    joined_results,
    judge_bench,
    judge_rows,
    judge_soak,
    result_of,
    soak_job,
    verify_job,
)
from edgeseg.errors import BoardError, BoardUnreachable

PASSED, FAILED, REFUSED, ERROR = "passed", "failed", "refused", "error"
_SHORT_S = 120.0


class BundleRun:
    """What is done with one bundle on one board; `run` may be called again after the connection was lost.

    Attributes:
        facts: of the board, as it was found last.
    """

    def __init__(
        self,
        connection: Connection,
        station: Station,
        candidate: Candidate,
        facts: BoardFacts,
        done: Done,
        say: Callable[[str], None],
        *,
        limits: Limits | None = None,
        measures: Measures | None = None,
    ) -> None:
        """Prepare.

        Args:
            connection: to the board.
            station: where results go.
            candidate: the bundle.
            facts: of the board.
            done: what an earlier part of the record has; what this part does is added.
            say: tells people how it goes.
            limits, measures: in place of those of the board.
        """
        self._connection = connection
        self._station = station
        self._candidate = candidate
        self.facts = facts
        self._done = done
        self._say = say
        entry = connection.entry
        self._limits = limits or entry.limits or Limits()
        self._measures = measures or entry.measures or Measures()
        self._profile = entry.profile
        folder = f"{entry.work}/{run_folder(candidate.digest)}"
        self._place = Place(folder, f"{folder}/bundle.edgeseg", f"{folder}/keys" if entry.trusted_keys else "")
        self._measured_s = 0.0

    def run(self) -> tuple[str, str]:
        """Do what is not done yet: the status and, where it did not pass, the reason.

        Raises BoardUnfit before anything goes to the board, BoardUnreachable where the connection is lost, BoardError.
        """
        start, self._measured_s = time.monotonic(), 0.0
        fitness = check_fitness(self._connection.entry, self.facts, self._candidate, self._measures.runtimes)
        self._write(
            "fit",
            plan=fitness.plan.description,
            left_out=fitness.left_out,
            limits=msgspec.to_builtins(self._limits),
            measures=msgspec.to_builtins(self._measures),
        )
        try:
            self._deploy()
            status, reason = self._steps(fitness)
        except BoardUnreachable:
            raise
        except BoardError:
            with contextlib.suppress(BoardError):
                self._collect()
            raise
        self._collect()
        total = time.monotonic() - start
        self._write(
            "cost",
            seconds=round(total, 6),
            measured_s=round(self._measured_s, 6),
            overhead_s=round(total - self._measured_s, 6),
        )
        return status, reason

    def _steps(self, fitness: Fitness) -> tuple[str, str]:
        steps: list[tuple[str, Callable[[Fitness], tuple[str, str]]]] = [(VERIFY, self._verify)]
        if self._measures.warm_up_rounds:
            steps.append((WARM_UP, self._warm_up))
        steps.append((BENCH, self._bench))
        if self._measures.soak_minutes:
            steps.append((SOAK, self._soak))
        status, reason = PASSED, ""
        for name, step in steps:
            known = self._done.steps.get((self._candidate.digest, name))
            one, why = (known["status"], known["reason"]) if known else step(fitness)
            if one != PASSED and status == PASSED:
                status, reason = one, f"{name}: {why}"
            if one != PASSED and name == VERIFY:
                break  # what is not what it was converted to is not worth measuring
        return status, reason

    def _deploy(self) -> None:
        """Bring the bundle and have the board's edgeseg put it in its place."""
        start = time.monotonic()
        about = {"bundle": self._candidate.name, "step": "deploy"}
        incoming = f"{self._place.folder}/incoming"
        self._connection.put(self._candidate.path, incoming, **about)
        trust: tuple[str, ...] = ("--unsigned",) if self.facts.trusted_keys is None else ()
        if self._place.keys:
            for number, key in enumerate(_key_files(self._connection.entry.trusted_keys)):
                self._connection.put(key, f"{self._place.keys}/{number}.pub", **about)
            trust = self._place.trust
        words = ("install", incoming, self._place.bundle, *trust, "--allow-older")
        done = self._connection.edgeseg(words, _SHORT_S, **about)
        if done.rc:
            raise BoardError(f"{self._connection.entry.name}: {error_line(done)}")
        self._finish("deploy", PASSED, "", start, None, None)

    def _verify(self, fitness: Fitness) -> tuple[str, str]:
        jobs = [verify_job(self._place, group, self._measures, self._profile) for group in fitness.plan.groups]
        return self._measure(jobs, lambda rows: judge_rows(rows["rows"]))

    def _warm_up(self, fitness: Fitness) -> tuple[str, str]:
        jobs = [
            bench_job(self._place, group, self._measures, self._profile, warm_up=True) for group in fitness.plan.groups
        ]
        return self._measure(jobs, lambda rows: [])

    def _bench(self, fitness: Fitness) -> tuple[str, str]:
        jobs = [bench_job(self._place, group, self._measures, self._profile) for group in fitness.plan.groups]
        return self._measure(
            jobs, lambda result: judge_rows(result["rows"]) + judge_bench(result["rows"], self._limits)
        )

    def _soak(self, fitness: Fitness) -> tuple[str, str]:
        bench = self._done.steps[self._candidate.digest, BENCH]
        row = fastest((bench["result"] or {}).get("rows", ()))
        golden = self._candidate.bundle.manifest.golden
        if row is None or not golden:
            why = "no artifact was measured" if golden else "the bundle has no golden frame to stream"
            return self._finish(SOAK, FAILED, why, time.monotonic(), None, None)
        frame = golden[0].frame.path.relative_to(self._candidate.bundle.path).as_posix()
        job = soak_job(self._place, frame, row, self._measures, self._limits, self._profile)
        return self._measure([job], lambda result: judge_soak(result, self._limits))

    def _measure(self, jobs: list[Job], judge: Callable[[dict[str, Any]], list[str]]) -> tuple[str, str]:
        """Run the commands of one step one after the other; their rows become one result."""
        start = time.monotonic()
        result: dict[str, Any] | None = None
        samples: list[Any] = []
        failed: list[str] = []
        for job in jobs:
            done = self._connection.edgeseg(
                job.words, job.timeout_s, job.files, bundle=self._candidate.name, step=job.step
            )
            self._measured_s += done.seconds
            part, raw = result_of(job, dict(done.files))
            if part is None:
                failed.append(error_line(done))
                continue
            result = part if result is None else joined_results(result, part)
            samples += raw["rows"] if raw else []
        failed += judge(result) if result else []
        status = FAILED if failed else PASSED
        return self._finish(jobs[0].step, status, "; ".join(failed), start, result, samples or None)

    def _finish(
        self, step: str, status: str, reason: str, start: float, result: dict[str, Any] | None, samples: Any
    ) -> tuple[str, str]:
        fields = {"status": status, "reason": reason, "result": result}
        seconds = round(time.monotonic() - start, 6)
        self._write("step", step=step, seconds=seconds, **fields, samples=samples)
        self._done.steps[self._candidate.digest, step] = fields
        self._say(f"{self._candidate.name}: {step} {status} in {seconds:.1f} s" + (f": {reason}" if reason else ""))
        return status, reason

    def _collect(self) -> None:
        """See what the work did to the board, and leave nothing on its disk.

        Raises BoardError where the figures do not hold: memory ran out, or the board became another one.
        """
        facts = self._connection.facts(bundle=self._candidate.name, step="collect")
        before, self.facts = self.facts, facts
        self._write("after", facts=msgspec.to_builtins(facts))
        name = self._connection.entry.name
        if (killed := (facts.oom_kills or 0) - (before.oom_kills or 0)) > 0 and facts.boot_id == before.boot_id:
            raise BoardError(f"{name} ran out of memory and killed {killed} processes in the middle")
        if changed := {k: v for k, v in facts.conditions.items() if v != before.conditions[k]}:
            what = ", ".join(f"{key} from {before.conditions[key]} to {value}" for key, value in changed.items())
            raise BoardError(f"{name} changed in the middle, {what}: the figures are of no one board, measure again")

    def _write(self, event: str, **fields: Any) -> None:
        about = {"bundle": self._candidate.name, "digest": self._candidate.digest}
        self._station.write(event, board=self._connection.entry.name, **about, **fields)


def _key_files(trusted: Sequence[str]) -> list[Path]:
    paths = [Path(path) for path in trusted]
    return [file for path in paths for file in (sorted(path.glob("*.pub")) if path.is_dir() else [path])]
