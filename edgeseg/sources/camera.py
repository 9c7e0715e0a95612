"""A camera or frame grabber (V4L2), or an HTTP or RTSP stream, through OpenCV; reopened where it goes away."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from edgeseg.clips import quiet_ffmpeg
from edgeseg.errors import BadInput, NoSuchDevice
from edgeseg.frame_source import Counts, FrameSource, SourceKind
from edgeseg.images import check_pixels, quiet_opencv
from edgeseg.sources.live import Ended, Gone, Newest, Shot, items, keep_reading
from edgeseg.sources.options import Options
from edgeseg.types import Array, Frame

PATIENCE_S = 30.0
PROTOCOLS = ("http", "https", "rtsp")

_DEVICE = re.compile(r"(?:camera:|/dev/video)(\d{1,4})")
_OPEN_TIMEOUT_MS, _READ_TIMEOUT_MS = 5000, 2000
_MOST_DAMAGED, _DAMAGE_S = 8, 1.0


def open_camera(spec: str, *, patience_s: float = PATIENCE_S) -> FrameSource:
    """Open `camera:N` or `/dev/videoN`, both with options, or an http, https or rtsp URL.

    Args:
        spec: options are `width`, `height` (pixels) and `fps`, as in `camera:0?width=640&height=480&fps=30`: wishes,
            which the driver rounds to what it can.
        patience_s: how long to wait for a camera that went away.

    Raises:
        NoSuchDevice: it cannot be opened.
        BadInput: the form is not one of these.
    """
    if "://" in spec:
        return open_device(CvDevice(spec, _safe_url(spec)), patience_s=patience_s)
    options = Options(spec)
    found = _DEVICE.fullmatch(options.target)
    if not found:
        raise BadInput(f"{spec} is no camera, expected one as in camera:0 or /dev/video0")
    wishes = {
        cv2.CAP_PROP_FRAME_WIDTH: options.integer("width", 1, 1 << 16),
        cv2.CAP_PROP_FRAME_HEIGHT: options.integer("height", 1, 1 << 16),
        cv2.CAP_PROP_FPS: options.figure("fps", 1000),
    }
    options.check_all_used()
    given = {key: value for key, value in wishes.items() if value is not None}
    return open_device(CvDevice(int(found[1]), options.target, given), patience_s=patience_s)


def open_device(device: CvDevice, *, patience_s: float = PATIENCE_S) -> FrameSource:
    """A live source from a device that is not opened yet. Raises NoSuchDevice where it cannot be."""
    try:
        device.open()
    except Gone as gone:
        raise NoSuchDevice(f"{device.name} cannot be opened: {gone}") from None
    counts, stopped = device.counts, threading.Event()
    newest = Newest(keep_reading(device, device.name, counts, stopped, patience_s), stopped, device.close)
    return FrameSource(
        device.name,
        SourceKind.CAMERA,
        items(newest.shots(), device.name, counts),
        rate_hz=device.rate_hz,
        live=True,
        counts=counts,
        stop=newest.stop,
        close=newest.join,
    )


class CvDevice:
    """What `cv2.VideoCapture` opens.

    Attributes:
        name: for messages, without passwords.
        counts: what was passed over; `damaged` is counted here.
        rate_hz: what the device says, None where it says nothing.
    """

    def __init__(self, target: int | str, name: str, wishes: dict[int, float] | None = None) -> None:
        """A device number, or a URL or path; `wishes` are OpenCV properties to set."""
        self.name = name
        self.counts = Counts()
        self.rate_hz: float | None = None
        self._target = target
        self._wishes = wishes or {}
        self._capture: cv2.VideoCapture | None = None
        self._left: int | None = None

    def open(self) -> None:
        """Raises Gone where there is nothing to open."""
        quiet_ffmpeg()
        with quiet_opencv():
            capture = self._open()
            if not capture.isOpened():
                raise Gone(_why_not(self._target))
            for key, value in self._wishes.items():
                capture.set(key, value)
            rate, length = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate_hz = rate if 0 < rate < 1e3 else None
        # A clip on a server has an end, a camera has none.
        self._left = int(length) if 0 < length < 1 << 31 else None
        self._capture = capture

    def read(self) -> Shot | None:
        """The next frame. Raises Gone, Ended at the end of a clip, BadInput for a picture that is too large."""
        assert self._capture is not None
        start_s = time.monotonic()
        for damaged in range(_MOST_DAMAGED):
            with quiet_opencv():
                there = self._capture.grab()
                captured_s = time.monotonic()
                there, frame = self._capture.retrieve() if there else (False, None)
            if there and frame is not None:
                self.counts.damaged += damaged
                self._left = None if self._left is None else self._left - 1 - damaged
                return Shot(self._to_frame(frame), captured_s)
            if self._left is not None and self._left <= 0:
                raise Ended
            if time.monotonic() - start_s > _DAMAGE_S:
                break
        raise Gone("it gives no more frames")

    def close(self) -> None:
        """Let go of the device."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _to_frame(self, pixels: Array) -> Frame:
        try:
            check_pixels(pixels.shape[1], pixels.shape[0])
        except BadInput as error:
            raise BadInput(f"{self.name} {error}") from None
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self._target, int):
            return cv2.VideoCapture(self._target, cv2.CAP_V4L2)
        # FFmpeg alone: other backends would take a URL for a device or for a pattern of file names. What a stream may
        # lead to, FFmpeg restricts by how it was opened: what came by HTTP opens no file.
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS]
        return cv2.VideoCapture(self._target, cv2.CAP_FFMPEG, limits)


def _why_not(target: int | str) -> str:
    if isinstance(target, str):
        return f"no stream that can be decoded within {_OPEN_TIMEOUT_MS / 1e3:g} s"
    if not Path(f"/dev/video{target}").exists():
        there = sorted(str(p) for p in Path("/dev").glob("video*"))
        return f"/dev/video{target} does not exist, there is {', '.join(there) or 'no camera'}"
    return f"/dev/video{target} is in use, not permitted, or gives no pictures (is the user in the group video?)"


def _safe_url(url: str) -> str:
    """The URL without user, password and query, for messages and names. Raises BadInput for one that is none."""
    try:
        parts = urlsplit(url)
        where = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError as error:
        raise BadInput(f"the URL cannot be read: {error}") from None
    if parts.scheme.lower() not in PROTOCOLS or not where or not url.isprintable() or " " in url:
        raise BadInput(f"{parts.scheme}://{where or ''} is no stream, expected http, https or rtsp and a host")
    return f"{parts.scheme}://{where}{parts.path}"
