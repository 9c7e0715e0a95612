"""A stream as a person sees it: a panel on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgeseg.boards.telemetry import Reading
from edgeseg.commands.stream_figures import StreamFigures
from edgeseg.commands.stream_setup import StreamFacts, stand_back
from edgeseg.measure import measure
from edgeseg.runtimes.stream_result import Freshness, StreamResult, StreamStats

_PANEL_S, _LINE_S = 0.25, 5.0
_SILENT_S = 1.0
_WIDTH = 100


class StreamView:
    """Renders a stream from what is known of it; every method may be called by another thread than the stream's."""

    def __init__(
        self,
        facts: StreamFacts,
        figures: StreamFigures,
        stats: Callable[[], StreamStats],
        reading: Callable[[], Reading | None] = lambda: None,
    ) -> None:
        self._facts = facts
        self._figures = figures
        self._stats = stats
        self._reading = reading

    def panel(self) -> RenderableType:
        """All of it, for a terminal of 80 columns and more."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in self._rows(time.monotonic()):
            grid.add_row(label, text)
        title = Text(f"edgeseg stream {self._facts.bundle}")
        return Panel(
            grid, title=title, title_align="left", subtitle="Ctrl-C ends", subtitle_align="right", width=_WIDTH
        )

    def line(self) -> str:
        """The most of it in one line of plain text."""
        now_s = time.monotonic()
        stats = self._stats()
        parts = [_clock(self._figures.seconds(now_s)), self._speed(now_s), self._latency(now_s), _counts(stats)]
        last = self._figures.last
        if last is not None:
            parts += [f"on {last.link}", *([f"FROZEN for {last.frozen_s:.1f} s"] if last.frozen_s else [])]
        return ", ".join(parts + self._silence(now_s))

    def _rows(self, now_s: float) -> list[tuple[str, Text]]:
        stats, last = self._stats(), self._figures.last
        rows = [
            ("source", self._source(last)),
            ("engine", self._engine(last)),
            ("results", Text(f"{self._speed(now_s)}, running {_clock(self._figures.seconds(now_s))}")),
            ("latency", Text(self._latency(now_s) + self._deadline())),
            ("counts", _coloured(stats)),
        ]
        if stats.switches:
            switch = stats.switches[-1]
            told = f"at frame {switch.index} from {switch.source}: {switch.reason}"
            rows.append(("switched", Text(told, style="yellow")))
        rows += [("warning", Text(text, style="bold red")) for text in self._warnings(now_s, stats, last)]
        if last is not None:
            found = measure(last.mask, self._facts.classes, last.pixel_size_mm)
            told = "; ".join(str(m) for m in found if m.area_px) or "nothing found"
            rows.append(("last frame", Text(told if last.freshness is Freshness.FRESH else f"{told} (stale)")))
        board = _board(self._reading())
        return [*rows, *_optional("board", board), *_optional("real time", self._facts.real_time)]

    def _source(self, last: StreamResult | None) -> Text:
        parts = [self._facts.source]
        if last is not None:
            height, width = last.frame.shape[:2]
            parts.append(f"{width} x {height}")
        if self._facts.rate_hz:
            parts.append(f"{self._facts.rate_hz:g} Hz")
        return Text(", ".join(parts))

    def _engine(self, last: StreamResult | None) -> Text:
        chain = self._facts.chain
        link, position = (last.link, last.position) if last is not None else (chain[0], 0)
        of = f" ({position + 1} of {len(chain)})" if len(chain) > 1 else ""
        return Text(f"{link}{of}", style="" if position == 0 else "yellow")

    def _speed(self, now_s: float) -> str:
        rate = self._figures.rate_hz(now_s)
        return "no results yet" if rate is None else f"{rate:.1f} a second"

    def _latency(self, now_s: float) -> str:
        p50, p99 = (self._figures.recent_ms(now_s, percent) for percent in (50, 99))
        return "p50 - p99 -" if p50 is None or p99 is None else f"p50 {p50:.1f} p99 {p99:.1f} ms"

    def _deadline(self) -> str:
        deadline = self._facts.deadline_ms
        return "" if deadline is None else f", deadline {deadline:.1f} ms"

    def _warnings(self, now_s: float, stats: StreamStats, last: StreamResult | None) -> list[str]:
        found = self._silence(now_s)
        if last is not None and last.frozen_s:
            found.append(f"FROZEN: the picture has not changed for {last.frozen_s:.1f} s")
        if last is not None and last.freshness is Freshness.STALE:
            age = "" if last.age_ms is None else f", its mask is {last.age_ms:.0f} ms old"
            found.append(f"STALE: {last.fault or 'no answer in time'}{age}")
        return found

    def _silence(self, now_s: float) -> list[str]:
        silent_s = now_s - self._figures.last_s
        return [f"no result for {silent_s:.1f} s"] if silent_s > _SILENT_S else []


class ShowStream:
    """Shows a view in a thread of its own from `__enter__` to `__exit__`, so that a stream that stands is seen to."""

    def __init__(self, view: StreamView, console: Console) -> None:
        self._view = view
        self._console = console
        self._stop = threading.Event()
        shown = self._panels if console.is_terminal else self._lines
        self._thread = threading.Thread(target=shown, name="edgeseg-view", daemon=True)

    def __enter__(self) -> ShowStream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _panels(self) -> None:
        stand_back()
        with Live(console=self._console, auto_refresh=False, transient=True, get_renderable=self._view.panel) as live:
            while not self._stop.wait(_PANEL_S):
                live.refresh()

    def _lines(self) -> None:
        stand_back()
        while not self._stop.wait(_LINE_S):
            say(self._console, self._view.line())


def console_beside(*, json_on_stdout: bool) -> Console | None:
    """Where a person looks on: standard output; standard error where JSON has that; None where they would mix."""
    if not json_on_stdout:
        return Console()
    console = Console(stderr=True)
    return console if console.is_terminal and not sys.stdout.isatty() else None


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _counts(stats: StreamStats) -> str:
    return ", ".join(f"{name} {value}" for name, value in _counted(stats))


def _coloured(stats: StreamStats) -> Text:
    text = Text()
    for name, value in _counted(stats):
        style = "green" if name == "fresh" else "red" if value else "dim"
        text.append(f"{name} {value}  ", style=style)
    return text


def _counted(stats: StreamStats) -> list[tuple[str, int]]:
    always = ("fresh", "stale", "late", "dropped")
    rare = ("skipped", "unread", "damaged", "lost")
    return [(n, getattr(stats, n)) for n in always] + [(n, getattr(stats, n)) for n in rare if getattr(stats, n)]


def _board(reading: Reading | None) -> str:
    if reading is None:
        return ""
    parts = [
        "" if reading.temperature_c is None else f"{reading.temperature_c:.0f} C",
        "" if reading.clock_mhz is None else f"{reading.clock_mhz:.0f} MHz",
        "" if reading.power_mw is None else f"{reading.power_mw / 1000:.1f} W",
        reading.governor or "",
        f"THROTTLED by {', '.join(reading.throttled_by or ())}" if reading.throttled else "",
    ]
    return ", ".join(part for part in parts if part)


def _optional(label: str, text: str) -> list[tuple[str, Text]]:
    return [(label, Text(text))] if text else []


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
