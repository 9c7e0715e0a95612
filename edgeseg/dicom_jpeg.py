"""JPEG frames inside DICOM, decoded so that the colours are right whatever the data set declares.

A pydicom decoding plugin over Pillow. pydicom's own one trusts (0028,0004) Photometric Interpretation unless a JFIF
marker contradicts it, and converts twice where an Adobe marker made Pillow convert already. Here the stream decides:
a JFIF marker means YCbCr, an Adobe marker says which, component ids "RGB" mean RGB. Only a stream that says nothing
is taken as what the data set declares. It also decodes JPEG Lossless (8 bit), which pydicom leaves to other plugins.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import Any

NAME = "edgeseg"
SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
}
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("pillow>=10.1",))
_RGB_IDS = ([0x52, 0x47, 0x42], [0x72, 0x67, 0x62])


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the transfer syntax here (pydicom's plugin interface)."""
    return uid in SYNTAXES and find_spec("PIL") is not None


def decode_frame(source: bytes, runner: Any) -> bytes:
    """Decode one frame to gray or interleaved RGB bytes (pydicom's plugin interface).

    Raises:
        ValueError: a size or number of components other than the data set declares, or more than 8 bits.
        OSError: a truncated or damaged stream.
    """
    from PIL import Image

    image: Any = Image.open(BytesIO(source), formats=("JPEG",))
    if image.size != (runner.columns, runner.rows) or len(image.getbands()) != runner.samples_per_pixel:
        raise ValueError(f"the JPEG is {image.size[0]}x{image.size[1]} {image.mode}, the data set declares otherwise")
    if runner.samples_per_pixel == 1:
        return bytes(image.tobytes())
    if str(runner.photometric_interpretation) == "RGB" and not _says_colour_space(image):
        image.draft("YCbCr", image.size)  # the components as they are stored
        pixels = image.tobytes()
    else:
        pixels = image.convert("RGB").tobytes()
    runner.set_option("photometric_interpretation", "RGB")
    runner.set_option("planar_configuration", 0)
    return bytes(pixels)


def _says_colour_space(image: Any) -> bool:
    ids = [component[0] for component in image.layer]
    return "jfif" in image.info or "adobe_transform" in image.info or ids in _RGB_IDS
