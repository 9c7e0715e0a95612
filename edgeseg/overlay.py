"""What people look at: the mask drawn on its frame, as pictures and clips. Files appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

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


def draw(frame: Array, mask: Mask, *, text: str | None = None, opacity: float = 0.3) -> Frame:
    """A frame with its mask: every class as a translucent fill with a crisp outline, and a line of text below.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8; it is not changed.
        mask: [H, W] uint8 class indices; 0 is the background and stays as it is.
        text: one line for the lower left corner; characters outside ASCII become `?`.
        opacity: of the fill, 0 to 1.

    Returns:
        [H, W, 3] RGB uint8.

    Raises:
        BadInput: the frame has another dtype or shape, or the mask another size.
    """
    image = check_frame(frame)
    if mask.shape != image.shape[:2]:
        raise BadInput(f"mask has shape {mask.shape}, expected the frame's {image.shape[:2]}")
    canvas: Frame = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image.copy()  # type: ignore[assignment]
    width = max(1, round(min(mask.shape) / _PIXELS_PER_LINE_WIDTH))
    for index in np.flatnonzero(np.bincount(mask.ravel(), minlength=1)[1:]) + 1:
        colour = COLOURS[(index - 1) % len(COLOURS)]
        region = (mask == index).astype(np.uint8)
        tinted = cv2.addWeighted(canvas, 1 - opacity, np.full_like(canvas, colour), opacity, 0)
        cv2.copyTo(tinted, region, canvas)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, colour, width, cv2.LINE_AA)
    if text:
        _write_text(canvas, text)
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

        Raises:
            BadInput: the suffix is unknown or the folder cannot be written.
        """
        self.path = Path(path)
        self.frames = 0
        self._codec = CLIP_SUFFIXES.get(self.path.suffix.lower())
        if self._codec is None:
            raise BadInput(f"{self.path} is no clip, expected a name that ends in {' or '.join(CLIP_SUFFIXES)}")
        self._rate_hz = rate_hz
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
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # as for reading: one line says what is wrong
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


def _write_text(canvas: Frame, text: str) -> None:
    height, width = canvas.shape[:2]
    line = " ".join(text.split()).encode("ascii", "replace").decode()
    scale = max(0.35, height / 1000)
    (text_width, text_height), below = cv2.getTextSize(line, _FONT, scale, 1)
    scale *= min(1.0, (width - 8) / max(text_width, 1))
    if scale < 0.2:  # not legible in so small a frame
        return
    top = max(0, height - text_height - below - 8)
    canvas[top:] = canvas[top:] // 3  # a dark band, so that text is legible on any picture
    cv2.putText(canvas, line, (4, height - below - 3), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _staging_file(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(0, "there is a folder of that name", str(path))
    staging = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    staging.touch(exist_ok=False)
    return staging


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path} cannot be written: {error.strerror or error}")
