"""`edgeseg soak`: a stream at a fixed rate for a long time, and whether it stayed what it was in its first minute."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from edgeseg.boards.telemetry import Telemetry
from edgeseg.commands.cpu_hogs import CpuHogs
from edgeseg.commands.end_signals import EndSignals
from edgeseg.commands.json_file import check_json
from edgeseg.commands.ranges import POSITIVE, FiniteRange
from edgeseg.commands.soak_report import SoakReport, describe_window
from edgeseg.commands.soak_run import SoakPlan, SoakRun, plan
from edgeseg.commands.soak_verdict import SoakLimits, judge
from edgeseg.commands.soak_windows import Window
from edgeseg.commands.stream_options import StreamRequest, stream_options
from edgeseg.commands.stream_setup import Setup, open_setup, results
from edgeseg.errors import BadInput, EdgesegError

if TYPE_CHECKING:
    from edgeseg.runtimes.stream import Stream

_FILE = click.Path(dir_okay=False, path_type=Path)
_MINUTES = FiniteRange(min=0, max=100_000, min_open=True)
_COUNT: dict[str, Any] = {"type": click.IntRange(0), "show_default": True, "metavar": "N"}


@click.command(
    epilog="\b\nExample:\n  edgeseg soak head.edgeseg clip.mp4 --minutes 30 --hogs 2 --json soak.json",
    short_help="Stream for a long time and hold it to its deadlines.",
)
@stream_options
@click.option(
    "--minutes", type=_MINUTES, default=30.0, show_default=True, metavar="M", help="How long, after the warm-up."
)
@click.option(
    "--warm-up", "warm_up_s", type=POSITIVE, metavar="SECONDS", help="Before that; a minute, less for a short soak."
)
@click.option("--hogs", default=0, help="Processes that keep a CPU busy each, to burn beside it.", **_COUNT)
@click.option(
    "--max-p999", "p999_ms", type=POSITIVE, metavar="MS", help="The most allowed as p99.9; the deadline by default."
)
@click.option("--max-missed", default=0, help="The most results late or stale.", **_COUNT)
@click.option("--max-dropped", default=0, help="The most frames without a result.", **_COUNT)
@click.option(
    "--max-drift", type=POSITIVE, metavar="MIB", default=1.0, show_default=True, help="The most that memory may grow."
)
@click.option("--json", "json_path", type=_FILE, help="Where the figures go as well.")
def soak(
    minutes: float,
    warm_up_s: float | None,
    hogs: int,
    p999_ms: float | None,
    max_missed: int,
    max_dropped: int,
    max_drift: float,
    json_path: Path | None,
    **shared: Any,
) -> int:
    """Stream SOURCE, over and over, at a fixed rate with BUNDLE, and judge how the last minute compares to the first.

    Files are replayed in a loop as if they were live; a live source is taken as it comes. After a warm-up, every
    minute gets its latency, jitter, drops, memory, open files, temperature and clock. The soak fails, with exit code
    1, where it misses a deadline, drops a frame, has a p99.9 above the deadline, grows by more than 1 MiB or a file,
    switches its engine, or where the board slows down.
    """
    asked = _Asked(StreamRequest(**shared), plan(minutes, warm_up_s), hogs, p999_ms, max_missed, max_dropped, max_drift)
    if json_path:
        check_json(json_path)
    with EndSignals() as signals:
        report, error = _soak(asked, signals)
    report.print()
    if json_path:
        report.write(json_path)
    if error:
        raise error
    if signals.asked:
        raise KeyboardInterrupt
    click.echo("passed" if report.passed else "FAILED")
    return 0 if report.passed else 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """The command line."""

    request: StreamRequest
    plan: SoakPlan
    hogs: int
    p999_ms: float | None
    missed: int
    dropped: int
    drift_mib: float

    def limits(self, deadline_ms: float) -> SoakLimits:
        return SoakLimits(
            self.p999_ms or deadline_ms, missed=self.missed, dropped=self.dropped, memory_mib=self.drift_mib
        )


def _soak(asked: _Asked, signals: EndSignals) -> tuple[SoakReport, EdgesegError | None]:
    """Soak; where it ends too early, the error stands beside what was measured until then."""
    # Imported here: `edgeseg soak --help` needs no runtime.
    from edgeseg.runtimes.stream import Stream
    from edgeseg.runtimes.stream_result import StreamOptions

    request = asked.request
    with ExitStack() as stack:
        # The hogs first: later ones would inherit real-time scheduling.
        burning = stack.enter_context(CpuHogs(asked.hogs))
        with signals.waiting():
            setup = open_setup(stack, request, loop=True)
        for line in setup.notes:
            click.echo(line)
        telemetry = stack.enter_context(Telemetry())
        run = SoakRun(asked.plan, setup.period_ms, telemetry, burning.pids)
        stream = stack.enter_context(Stream(setup.source, setup.chain, StreamOptions(request.deadline_ms)))
        reason, error = _take(run, stream, signals, asked.plan)
        hogs_lost = burning.lost if asked.hogs else None
    windows = list(run.windows)
    p999_ms = run.latency.percentile(99.9)
    judged = (
        [] if reason else judge(windows[1:], p999_ms, hogs_lost, asked.limits(setup.deadline_ms or setup.period_ms))
    )
    return SoakReport(_conditions(asked, setup), windows, run.latency, judged, reason), error


def _take(run: SoakRun, stream: Stream, signals: EndSignals, plan: SoakPlan) -> tuple[str, EdgesegError | None]:
    """Run to the end; else why it ended, and the error if it was one."""
    with _progress(plan) as (on_window, on_second):
        try:
            if run.run(results(stream, signals), lambda: stream.stats, on_window, on_second):
                return "", None
        except KeyboardInterrupt:
            return "interrupted", None
        except EdgesegError as error:
            return str(error), error
    ended = BadInput(f"the source ended before the {plan.seconds:.0f} s of the soak were over")
    return str(ended), ended


def _conditions(asked: _Asked, setup: Setup) -> dict[str, Any]:
    times = {"warm_up_s": asked.plan.warm_up_s, "window_s": asked.plan.window_s}
    return {**setup.document(), **times, "hogs": asked.hogs}


@contextlib.contextmanager
def _progress(plan: SoakPlan) -> Iterator[tuple[Callable[[Window], None], Callable[[float], None]]]:
    """Yield what to call with every window and with the seconds so far: a bar on a terminal, a line a window else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda window: click.echo(f"{window.name}: {describe_window(window)}"), lambda seconds: None
        return
    # The words last: a narrow terminal cuts them off, not the time.
    words = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    columns = (BarColumn(12), TimeRemainingColumn(table_column=Column(min_width=7)), words)
    # Drawn by whoever takes the results: a thread that draws ten times a second would be in the way of the engine.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("warm-up", total=plan.seconds)
        yield (
            lambda window: bar.update(task, description=f"{window.name}: {describe_window(window)}"),
            lambda seconds: bar.update(task, completed=seconds, refresh=True),
        )
