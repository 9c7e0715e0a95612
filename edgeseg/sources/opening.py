"""One way in: what is asked for in words becomes a source of frames."""

from __future__ import annotations

import re
from pathlib import Path

from edgeseg.errors import BadInput
from edgeseg.frame_source import FrameSource
from edgeseg.frames import open_frames
from edgeseg.sources.pacing import paced

FORMS = "a path, camera:0, /dev/video0, http://… or rtsp://…, pipe:-?width=640&height=480, shm:NAME or igtl://HOST:PORT"

_CAMERA = re.compile(r"(camera:|/dev/video[0-9]).*")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*")


def open_source(
    spec: str | Path, *, rate_hz: float | None = None, loop: bool = False, patience_s: float | None = None
) -> FrameSource:
    """Open whatever gives frames.

    Args:
        spec: a path of an image, a folder, a clip or a DICOM file; `camera:N` or `/dev/videoN`, with options as in
            `camera:0?width=640&height=480&fps=30`; an `http://`, `https://` or `rtsp://` URL; `pipe:-`, `pipe:N` or
            `pipe:PATH`; `shm:NAME`; `igtl://HOST:PORT` or `igtl://HOST:PORT/DEVICE`. A `Path` is never anything but a
            path, and neither is text that starts with `/` or `./` (cameras aside).
        rate_hz: replay at this rate (`edgeseg.sources.paced`).
        loop: start over at the end, at `rate_hz` or else the rate of the clip.
        patience_s: how long to wait for a live source that went away; None for 30 s, or 10 s of shared memory.

    Raises:
        BadInput: no such form or file, or a file that cannot be read.
        NoSuchDevice: a camera, ring or server that is not there.
        MissingDependency: DICOM or OpenIGTLink without its extra.
    """
    source = open_frames(spec) if isinstance(spec, Path) else _open(spec, patience_s)
    try:
        if loop and rate_hz is None and (rate_hz := source.rate_hz) is None:
            raise BadInput(f"{source.name} has no rate of its own, expected one to loop at: give it")
        return source if rate_hz is None else paced(source, rate_hz, loop)
    except BaseException:
        source.close()
        raise


def _open(spec: str, patience_s: float | None) -> FrameSource:
    # Each is imported when it is asked for: OpenIGTLink is an extra.
    limits = {} if patience_s is None else {"patience_s": patience_s}
    url = _URL.fullmatch(spec)
    scheme = url[1].lower() if url else ""
    if _CAMERA.fullmatch(spec) or scheme in ("http", "https", "rtsp"):
        from edgeseg.sources.camera import open_camera

        return open_camera(spec, **limits)
    if spec.startswith("pipe:"):
        from edgeseg.sources.pipe import open_pipe

        return open_pipe(spec)
    if spec.startswith("shm:"):
        from edgeseg.sources.shared import open_shared

        return open_shared(spec, **limits)
    if scheme == "igtl":
        from edgeseg.sources.igtl import open_igtl

        return open_igtl(spec, **limits)
    if scheme or not Path(spec).exists():
        what = f"{scheme}:// is no protocol that is opened" if scheme else f"{spec} cannot be read: No such file"
        raise BadInput(f"{what}; expected {FORMS}")
    return open_frames(spec)
