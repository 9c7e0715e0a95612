"""Pictures of frames with two outlines: the frame as a small picture, each outline as a path that stays crisp."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Array, Frame, Mask

_LARGEST_SIDE = 560
_QUALITY = 55
_DETAIL = 9.0  # the detail shows this part of the frame's width


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame for the page.

    Attributes:
        id: of its element.
        uri: WebP as a data URI.
        width, height: of the frame itself, in pixels.
    """

    id: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Overlay:
    """One frame of one row with its outlines.

    Attributes:
        row: the key of the row.
        which: best, median or worst.
        index: of the frame.
        picture: the id of its picture.
        source, artifact, truth: outlines as data of an SVG path in pixels of the frame; empty where there are none.
        detail: the place of the largest difference, (x, y, width, height).
        differing: number of pixels in which artifact and source differ.
    """

    row: str
    which: str
    index: int
    picture: str
    source: str
    artifact: str
    truth: str
    detail: tuple[int, int, int, int]
    differing: int


def picture(id: str, frame: Frame) -> Picture:
    """A frame [H, W] or [H, W, 3] RGB uint8, made smaller where it is large."""
    height, width = frame.shape[:2]
    scale = min(1.0, _LARGEST_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    if small.ndim == 3:
        small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    if not done:
        raise BadInput(f"a frame of {width}x{height} pixels cannot be written as WebP")
    return Picture(id, "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode(), width, height)


def outline(mask: Mask) -> str:
    """The outlines of all classes of a mask [H, W] as the data of an SVG path, without loss."""
    parts = []
    for index in range(1, int(mask.max()) + 1):
        region = (mask == index).astype(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        parts += [_path(contour[:, 0]) for contour in contours]
    return "".join(parts)


def detail_of(source: Mask, artifact: Mask) -> tuple[int, int, int, int]:
    """Where two masks [H, W] differ most: the box (x, y, width, height) that holds the most differing pixels.

    Where they are equal, around the top of the outline, or the middle of a frame without any.
    """
    height, width = source.shape
    box_width, box_height = max(1, round(width / _DETAIL)), max(1, round(height / _DETAIL))
    different = (source != artifact).astype(np.float32)
    if different.any():
        counts = cv2.boxFilter(different, -1, (box_width, box_height), normalize=False, borderType=cv2.BORDER_CONSTANT)
        y, x = (int(i) for i in np.unravel_index(int(counts.round().argmax()), source.shape))
    else:
        y, x = _top_of(source)
    left = min(max(0, x - box_width // 2), width - box_width)
    top = min(max(0, y - box_height // 2), height - box_height)
    return left, top, box_width, box_height


def overlay(row: str, which: str, index: int, masks: tuple[Mask, Mask, Mask | None]) -> Overlay:
    """From the masks [H, W] of the source, the artifact and the reference."""
    source, artifact, truth = masks
    return Overlay(
        row=row,
        which=which,
        index=index,
        picture=f"frame-{index}",
        source=outline(source),
        artifact=outline(artifact),
        truth="" if truth is None else outline(truth),
        detail=detail_of(source, artifact),
        differing=int(np.count_nonzero(source != artifact)),
    )


def _top_of(mask: Mask) -> tuple[int, int]:
    rows, columns = np.nonzero(mask)
    return (int(rows[0]), int(columns[0])) if len(rows) else (mask.shape[0] // 2, mask.shape[1] // 2)


def _path(points: Array) -> str:
    """A closed polygon of points [N, 2], each after the first relative to the one before."""
    steps = np.diff(points, axis=0)
    return f"M{points[0, 0]} {points[0, 1]}" + "".join(f"l{x} {y}" for x, y in steps) + "z"
