"""What goes into a stream and what comes out of it: options, one result a frame, counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeseg.errors import BadInput
from edgeseg.runtimes.segmenter import Segmentation
from edgeseg.types import Frame, Mask


class Freshness(StrEnum):
    """Whether a result is of its own frame."""

    FRESH = "fresh"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream behaves.

    Attributes:
        deadline_ms: from a frame's capture to its result; None for one period of the source, 33.3 where unknown.
        queue: frames that may wait for the engine; the oldest is dropped for a newer one.
        results: results that may wait for the consumer; the oldest is dropped for a newer one.
        lossless: whether to wait instead of dropping anything: no deadline is kept, unless `deadline_ms` is given to
            count what is late. None for whatever source is not live.
        hang_ms: after how long an engine that gives no answer is given up. None for twice the deadline, and never
            less than four times what the segmenter usually takes; the last one of the chain has a second at least.
        freeze_s: how long the picture has to stand still to be called frozen.
        smoothing: weight of the past in the confidence of each pixel, 0 (none) to below 1.

    Raises:
        BadInput: a figure is out of its range.
    """

    deadline_ms: float | None = None
    queue: int = 1
    results: int = 2
    lossless: bool | None = None
    hang_ms: float | None = None
    freeze_s: float = 0.5
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("deadline_ms", "hang_ms", "queue", "results", "freeze_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"the stream's {name} is {value}, expected more than 0")
        if not 0 <= self.smoothing < 1:
            raise BadInput(f"the stream's smoothing is {self.smoothing}, expected 0 (none) to below 1")


@dataclass(frozen=True, slots=True, eq=False)
class StreamResult:
    """The newest that a stream knows about a frame, within its deadline.

    Attributes:
        index: of the frame in its source, from 0.
        name: of the frame, safe as a file name.
        frame: [H, W] or [H, W, 3] uint8, as it was captured.
        mask: [H, W] uint8 class indices in the frame's own pixels; not to be written, later stale results share it. A
            stale one is that of the last frame that was segmented, at this frame's size; all background where there
            was none.
        freshness: fresh, or stale: the mask is of an earlier frame.
        age_ms: since the capture of the frame that the mask is of, when the result was made; None where there was none.
        latency_ms: from this frame's capture to this result.
        late: whether that is more than the deadline.
        link: the segmenter in charge, which made a fresh mask, as in "openvino-int8 on openvino CPU".
        position: of that segmenter in the chain; 0 is the first choice.
        fault: why the result is stale, or what made the stream switch with this frame; "" otherwise.
        frozen_s: for how long the picture has not changed; 0 where it does.
        dropped: frames dropped since the result before.
        time_s: of the frame in its clip or cine.
        pixel_size_mm: edge of a square pixel; None where unknown.
        captured_s: when the frame was captured, by `time.monotonic()`.
        segmentation: of a fresh result, None of a stale one. Its mask is the one before smoothing.
    """

    index: int
    name: str
    frame: Frame
    mask: Mask
    freshness: Freshness
    age_ms: float | None
    latency_ms: float
    late: bool
    link: str
    position: int
    fault: str = ""
    frozen_s: float = 0.0
    dropped: int = 0
    time_s: float | None = None
    pixel_size_mm: float | None = None
    captured_s: float = 0.0
    segmentation: Segmentation | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """A change to the next segmenter of the chain: at which frame, from what, to what, and why.

    `target` is "" where there was no next one and the stream ended.
    """

    index: int
    source: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class StreamStats:
    """What a stream did so far; when it has ended, every frame captured is counted as one of fresh, stale and dropped.

    Attributes:
        captured: frames that the source gave.
        fresh, stale: results made, by freshness.
        dropped: frames that a newer one took the place of, or that the end of the stream left over.
        unread: results that the consumer did not take in time.
        late: results after their deadline.
        overtaken: answers of the engine that came after the stale result of their frame.
        damaged: frames that the source could not decode and went past.
        lost: how often the source went away and came back.
        skipped: frames (of a replay: due times) that the source could not keep, because nobody took them in time.
        frozen: results on a picture that stood still.
        switches: changes of the segmenter.
    """

    captured: int = 0
    fresh: int = 0
    stale: int = 0
    dropped: int = 0
    unread: int = 0
    late: int = 0
    overtaken: int = 0
    damaged: int = 0
    lost: int = 0
    skipped: int = 0
    frozen: int = 0
    switches: tuple[Switch, ...] = ()
