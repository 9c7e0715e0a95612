"""Golden frames: the real frames of a bundle, with what the source made of them, checked as they are read."""

from __future__ import annotations

import io

import numpy as np

from edgeseg.bundle import read_record
from edgeseg.errors import BundleError
from edgeseg.images import decode_image
from edgeseg.types import Array, FileRecord, Frame, Golden, Mask

_LARGEST_RANK = 4


def read_frame(golden: Golden) -> Frame:
    """The frame, [H, W] or [H, W, 3] uint8. Raises BundleError where it was changed, BadInput for no image."""
    return _image(golden.frame)


def read_mask(golden: Golden) -> Mask:
    """The source's mask, [H, W] uint8 class indices; raises as `read_frame`."""
    return _image(golden.mask)


def read_input(golden: Golden) -> Frame | None:
    """The network input recorded for the frame, [h, w] or [h, w, 3] uint8, None in old bundles; as `read_frame`."""
    return None if golden.input is None else _image(golden.input)


def read_logits(golden: Golden) -> Array:
    """The source's logits, [1, L, h, w] float32. Raises BundleError where they were changed or are something else."""
    data = read_record(golden.logits)
    name = golden.logits.path
    try:
        logits = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy has Python read the header, and lets out what that raises
        raise BundleError(f"{name} is no array of numpy: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.ndim != _LARGEST_RANK:
        raise BundleError(f"{name} is not [1, L, h, w] float32: convert the model again")
    return logits


def _image(record: FileRecord) -> Frame:
    return decode_image(read_record(record), str(record.path))
