"""`edgeseg stream`: a live source in, results within their deadlines out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from edgeseg.commands.end_signals import EndSignals
from edgeseg.commands.json_lines import STANDARD_OUTPUT, JsonLines
from edgeseg.commands.live_view import console_beside
from edgeseg.commands.ranges import POSITIVE, SMOOTHING
from edgeseg.commands.run_output import DICOM_SUFFIX, check_output
from edgeseg.commands.stream_options import StreamRequest, stream_options
from edgeseg.commands.stream_run import StreamRun, Until


@click.command(
    epilog="\b\nExample:  edgeseg stream head.edgeseg camera:0;\n"
    "a recorded clip as if it were live, for a program:\n  edgeseg stream head.edgeseg clip.mp4 --fps 30 --json",
    short_help="Segment a live source, every result within its deadline.",
)
@stream_options
@click.option("--loop", is_flag=True, help="Replay for ever.")
@click.option("--lossless", is_flag=True, help="Wait instead of dropping frames; without --fps as fast as it goes.")
@click.option(
    "--smoothing",
    type=SMOOTHING,
    default=0.0,
    show_default=True,
    metavar="W",
    help="Weight of the frames before, 0 (none) to below 1.",
)
@click.option("--frames", type=click.IntRange(1), metavar="N", help="End after so many results.")
@click.option("--seconds", type=POSITIVE, metavar="S", help="End after so many seconds.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A folder or a clip for the results, as of `edgeseg run`."
)
@click.option(
    "--json",
    "json_target",
    is_flag=False,
    flag_value=STANDARD_OUTPUT,
    metavar="[FILE]",
    help="Write a JSON line for every result to FILE, or to standard output.",
)
def stream(
    loop: bool,
    lossless: bool,
    smoothing: float,
    frames: int | None,
    seconds: float | None,
    output: Path | None,
    json_target: str | None,
    **shared: Any,
) -> None:
    """Segment the frames of SOURCE with BUNDLE while they come, until it ends or Ctrl-C is pressed.

    SOURCE is live (camera:0, /dev/video0, rtsp://..., pipe:-, shm:NAME, igtl://HOST:PORT), or a clip, DICOM file or
    folder, which is replayed as if it were: at its own rate, or 30 frames a second.

    Every frame gets its result within the deadline, or is marked: a stale result has the mask of an earlier frame and
    its age; where frames come faster than the engine can take them, the newest wins. An engine that fails or hangs is
    replaced by the next --link. The exit code is 1 where none is left, or SOURCE breaks off or gives no frame at all.
    """
    if output:
        if output.suffix.lower() == DICOM_SUFFIX:
            raise click.UsageError(
                f"-o {output} needs all masks at once: `edgeseg run` writes DICOM Segmentation objects"
            )
        check_output(output, Path(shared["source"]))
    # Imported here: `edgeseg stream --help` needs no runtime.
    from edgeseg.runtimes.stream_result import StreamOptions

    request = StreamRequest(**shared)
    options = StreamOptions(request.deadline_ms, lossless=lossless, smoothing=smoothing)
    console = console_beside(json_on_stdout=json_target == STANDARD_OUTPUT)
    with ExitStack() as stack:
        signals = stack.enter_context(EndSignals())
        lines = stack.enter_context(JsonLines(json_target)) if json_target else None
        StreamRun(request, Until(frames, seconds), signals, lines, console).run(output, options, loop=loop)
