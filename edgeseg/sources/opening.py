"""One way in: what is asked for in words becomes a source of frames."""

from __future__ import annotations

from pathlib import Path

from edgeseg.frame_source import FrameSource
from edgeseg.frames import open_frames
from edgeseg.sources.pacing import paced


def open_source(spec: str | Path, *, rate_hz: float | None = None, loop: bool = False) -> FrameSource:
    """Open whatever gives frames."""
    source = open_frames(spec)
    rate_hz = rate_hz or (source.rate_hz if loop else None)
    return paced(source, rate_hz, loop) if rate_hz else source
