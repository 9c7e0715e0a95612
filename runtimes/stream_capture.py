"""The capture of a stream: from the source into the queue, in a thread of its own."""

from __future__ import annotations

from time import monotonic

from edgeseg.frame_source import FrameItem, FrameSource
from edgeseg.preprocess import check_frame
from edgeseg.runtimes.frozen import FreezeDetector
from edgeseg.runtimes.stream_core import Core
from edgeseg.runtimes.stream_outbox import Arrival


def capture(source: FrameSource, core: Core, detector: FreezeDetector) -> None:
    """Give all frames of a source to a stream, and then the reason why there are no more."""
    try:
        for item in source:
            if not core.offer(_arrival(item, detector)):
                return
    except Exception as error:
        core.end_of_source(error)
    else:
        core.end_of_source()


def _arrival(item: FrameItem, detector: FreezeDetector) -> Arrival:
    frame = check_frame(item.frame)
    if item.captured_s is not None:
        return Arrival(item, item.captured_s, detector.update(frame, item.captured_s))
    captured_s = monotonic()
    # A file that is read as fast as it can be has its own time.
    return Arrival(item, captured_s, detector.update(frame, captured_s if item.time_s is None else item.time_s))
