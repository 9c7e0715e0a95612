"""Images, clips and DICOM as one iterator of frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Frame


def read_image(path: Path | str) -> Frame:
    """One image file as [H, W] gray or [H, W, 3] RGB uint8. Raises BadInput (to be replaced by the full version)."""
    data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise BadInput(f"{path} is not an image")
    if image.ndim == 3:
        image = cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2RGB)
    return image.astype(np.uint8)
