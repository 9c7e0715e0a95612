"""What people look at: the mask drawn on its frame, as pictures and clips. Files appear whole or not at all."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.clips import quiet_ffmpeg
from edgeseg.errors import BadInput
from edgeseg.images import quiet_opencv
from edgeseg.preprocess import check_frame
from edgeseg.types import Array, Frame, Mask

# Okabe and Ito's colour-blind-safe set (2008), RGB, those that stand out from gray first. Class 1 is the first one.
COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
CLIP_SUFFIXES = {".mp4": "mp4v", ".avi": "MJPG"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PIXELS_PER_LINE_WIDTH = 320
_LEAST_SCALE = 0.2  # of text; below it is not legible
_STALE, _WARNING = (200, 200, 200), COLOURS[1]
_DASH = 6
_STRIP_BYTES = 1 << 16
_LARGEST_TIME_BASE = (1 << 16) - 1
_DECIMALS = 3  # of a rate, that OpenCV goes by


def draw(frame: Array, mask: Mask, *, text: str | None = None, opacity: float = 0.3, stale: str | None = None) -> Frame:
    """A frame with its mask: every class as a translucent fill with a crisp outline, and a line of text below.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8; it is not changed.
        mask: [H, W] uint8 class indices; 0 is the background and stays as it is.
        text: one line for the lower left corner; characters outside ASCII become `?`.
        opacity: of the fill, 0 to 1.
        stale: why the mask is not that of this frame, or how old it is; None where it is. It stands in an orange band
            at the top, and the outlines are gray and dashed, without a fill.

    Returns:
        [H, W, 3] RGB uint8.

    Raises:
        BadInput: the frame has another dtype or shape, or the mask another size.
    """
    canvas = _canvas(frame)
    _check_size("mask", mask, canvas)
    for index, region, (left, top) in _regions(mask):
        colour = COLOURS[(index - 1) % len(COLOURS)] if stale is None else _STALE
        if stale is None:
            height, width = region.shape
            _fill(canvas[top : top + height, left : left + width], region, _tint(colour, opacity))
        _outline(canvas, region, (left, top), colour, dashed=stale is not None)
    if stale is not None:
        _write_warning(canvas, stale)
    if text:
        _write_text(canvas, text)
    return canvas


def draw_confidence(frame: Array, confidence: NDArray[np.float32], *, opacity: float = 0.6) -> Frame:
    """A frame under a heat map of the probability of a class: dark blue is possible, yellow is certain.

    The map is the more transparent the lower the probability is; 0 leaves the frame as it is. The colours are those of
    cividis, which are in order for the colour-blind too (Nunez, Anderton and Renslow, PLoS ONE 13, 2018).

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8; it is not changed.
        confidence: [H, W] float32, 0 to 1: one class of a segmentation's confidence.
        opacity: of the map where the probability is 1.

    Returns:
        [H, W, 3] RGB uint8.

    Raises:
        BadInput: the frame has another dtype or shape, or the confidence another size or dtype.
    """
    canvas = _canvas(frame)
    _check_size("confidence", confidence, canvas)
    if confidence.dtype != np.float32:
        raise BadInput(f"confidence has dtype {confidence.dtype}, expected float32")
    share = opacity * np.arange(256) / 255
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_CIVIDIS)[:, :, ::-1]
    tint = np.rint(colours * share[:, None, None]).astype(np.uint8)
    rest = np.repeat(np.rint(255 * (1 - share)).astype(np.uint8)[:, None, None], 3, 2)
    for rows in _strips(canvas):
        level = cv2.convertScaleAbs(confidence[rows], alpha=255)
        kept = cv2.multiply(canvas[rows], cv2.applyColorMap(level, rest), scale=1 / 255)
        cv2.add(kept, cv2.applyColorMap(level, tint), dst=canvas[rows])
    return canvas


def write_image(path: Path | str, image: Array) -> None:
    """Write [H, W] gray or [H, W, 3] RGB uint8 as an image file; the suffix says which kind. Nothing half is left.

    Raises:
        BadInput: the image has another dtype or shape, the suffix is unknown, or the file cannot be written.
    """
    path = Path(path)
    pixels = check_frame(image)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    try:
        _, data = cv2.imencode(path.suffix or ".png", pixels)
    except cv2.error as error:
        raise BadInput(f"{path} cannot be written as {path.suffix}, expected a suffix such as .png") from error
    staging: Path | None = None
    try:
        staging = _staging_file(path)
        staging.write_bytes(data.tobytes())
        staging.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if staging:
            staging.unlink(missing_ok=True)


class ClipWriter:
    """Writes frames to an .mp4 (MPEG-4) or .avi (Motion JPEG) clip, which appears when the block ends well."""

    def __init__(self, path: Path | str, rate_hz: float) -> None:
        """Prepare a clip.

        Args:
            path: of the clip.
            rate_hz: frames a second, to within 0.001 Hz, or 0.01 % above 65.

        Raises:
            BadInput: the suffix is unknown or the folder cannot be written.
        """
        self.path = Path(path)
        self.frames = 0
        self._codec = CLIP_SUFFIXES.get(self.path.suffix.lower())
        if self._codec is None:
            raise BadInput(f"{self.path} is no clip, expected a name that ends in {' or '.join(CLIP_SUFFIXES)}")
        self._rate_hz = _encodable(rate_hz)
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()
        try:
            self._staging = _staging_file(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def write(self, frame: Frame) -> None:
        """Append a frame [H, W, 3] RGB uint8.

        Raises:
            BadInput: it has another size than the first one, or the clip cannot be written.
        """
        if self._writer is None:
            self._shape = frame.shape
            self._writer = self._open(frame)
        if frame.shape != self._shape:
            raise BadInput(
                f"frame {self.frames} has shape {frame.shape}, the clip {self._shape}: frames of several sizes go into "
                "a folder, choose another -o"
            )
        # Codecs that subsample colour need even sides; OpenCV would cut a row or column off.
        even = cv2.copyMakeBorder(frame, 0, frame.shape[0] % 2, 0, frame.shape[1] % 2, cv2.BORDER_REPLICATE)
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
            if kind is None and self.frames:
                self._commit()
        finally:
            self._staging.unlink(missing_ok=True)

    def _open(self, frame: Frame) -> cv2.VideoWriter:
        height, width = (side + side % 2 for side in frame.shape[:2])
        quiet_ffmpeg()
        assert self._codec
        with quiet_opencv():
            code = cv2.VideoWriter.fourcc(*self._codec)
            writer = cv2.VideoWriter(str(self._staging), code, self._rate_hz, (width, height))
        if not writer.isOpened():
            raise BadInput(f"{self.path} cannot be written: no encoder for {self._codec} at {width}x{height}")
        return writer

    def _commit(self) -> None:
        # OpenCV does not report a full disk: the clip is opened again and must have all its frames.
        with quiet_opencv():
            check = cv2.VideoCapture(str(self._staging))
            count = int(check.get(cv2.CAP_PROP_FRAME_COUNT))
            check.release()
        if count != self.frames:
            raise BadInput(
                f"{self.path} is incomplete: {max(count, 0)} of {self.frames} frames arrived, is the disk full?"
            )
        try:
            self._staging.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def _encodable(rate_hz: float) -> float:
    """The rate in so many decimals that OpenCV's fraction for it fits the 16 bits that MPEG-4 has for a time base."""
    decimals = math.floor(math.log10(_LARGEST_TIME_BASE / rate_hz))
    return round(rate_hz, min(max(decimals, 0), _DECIMALS))


def _canvas(frame: Array) -> Frame:
    image = check_frame(frame)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image.copy()  # type: ignore[return-value]


def _check_size(what: str, plane: Array, canvas: Frame) -> None:
    if plane.shape != canvas.shape[:2]:
        raise BadInput(f"{what} has shape {plane.shape}, expected the frame's {canvas.shape[:2]}")


def _regions(mask: Mask) -> Iterator[tuple[int, Mask, tuple[int, int]]]:
    """Every foreground class of a mask: its index, its pixels [h, w] 0 or 1 in their box, the box's corner (x, y)."""
    left, top, width, height = cv2.boundingRect(mask)
    inside = mask[top : top + height, left : left + width]
    for index in range(1, int(inside.max()) + 1 if inside.size else 0):
        region = (inside == index).view(np.uint8)
        x, y, across, down = cv2.boundingRect(region)
        if across:
            yield index, region[y : y + down, x : x + across], (left + x, top + y)


def _strips(picture: Array) -> Iterator[slice]:
    """Rows of a picture, so few at a time that what is computed of them stays in the cache and in the heap."""
    step = max(1, _STRIP_BYTES // max(1, picture.shape[1] * 3))
    return (slice(first, first + step) for first in range(0, len(picture), step))


def _fill(below: Frame, region: Mask, table: Array) -> None:
    for rows in _strips(below):
        cv2.copyTo(cv2.LUT(below[rows], table), region[rows], below[rows])


def _tint(colour: tuple[int, int, int], opacity: float) -> Array:
    """What each value of a channel becomes under a colour, [1, 256, 3] uint8 for cv2.LUT."""
    values = np.arange(256)[:, None] * (1 - opacity) + opacity * np.array(colour)
    return np.rint(values).astype(np.uint8)[None]


def _outline(
    canvas: Frame, region: Mask, offset: tuple[int, int], colour: tuple[int, int, int], *, dashed: bool
) -> None:
    """Draw the outlines of a region [h, w], holes too, that lies at `offset` (x, y) in the canvas."""
    width = max(1, round(min(canvas.shape[:2]) / _PIXELS_PER_LINE_WIDTH))
    # Every point, so that dashes can be counted off; straight runs in one, which smoothed lines take half the time for.
    points = cv2.CHAIN_APPROX_NONE if dashed else cv2.CHAIN_APPROX_SIMPLE
    contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, points, offset=offset)
    if dashed:
        dash = _DASH * width
        pieces = [c[i : i + dash] for c in contours for i in range(0, len(c), 2 * dash)]
        cv2.polylines(canvas, pieces, False, colour, width, cv2.LINE_AA)
    else:
        cv2.drawContours(canvas, contours, -1, colour, width, cv2.LINE_AA)


def _write_text(canvas: Frame, text: str) -> None:
    line, scale, height, below = _fitted(canvas, text)
    if scale < _LEAST_SCALE:
        return
    bottom = canvas.shape[0]
    band = canvas[max(0, bottom - height - below - 8) :]
    np.floor_divide(band, 3, out=band)  # dark, so that text is legible on any picture
    cv2.putText(canvas, line, (4, bottom - below - 3), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _write_warning(canvas: Frame, text: str) -> None:
    line, scale, height, below = _fitted(canvas, text)
    # The band is there even where text would not be legible.
    canvas[: max(2, height + below + 8)] = _WARNING
    if scale >= _LEAST_SCALE:
        cv2.putText(canvas, line, (4, height + 4), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _fitted(canvas: Frame, text: str) -> tuple[str, float, int, int]:
    """A line as it can be drawn, the scale at which it fits, and its height above and below the base line in pixels."""
    line = " ".join(text.split()).encode("ascii", "replace").decode()
    scale = max(0.35, canvas.shape[0] / 1000)
    (width, height), below = cv2.getTextSize(line, _FONT, scale, 1)
    return line, scale * min(1.0, (canvas.shape[1] - 8) / max(width, 1)), height, below


def _staging_file(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(0, "there is a folder of that name", str(path))
    staging = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    staging.touch(exist_ok=False)
    return staging


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path} cannot be written: {error.strerror or error}")
