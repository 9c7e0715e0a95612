"""DICOM ultrasound, single- and multi-frame, as 8-bit frames with times and pixel size. Needs the extra `dicom`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeseg import dicom_jpeg
from edgeseg.errors import BadInput, MissingDependency
from edgeseg.frame_source import Counts, square_mm
from edgeseg.images import check_pixels
from edgeseg.types import Array, Frame

# Those of pydicom's plugins that may decode, best first. GDCM aborts the process on a damaged JPEG or JPEG 2000 stream.
_PLUGINS = ("pillow", "pyjpegls", "pydicom", "pylibjpeg")
_DECODERS = {
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}
_TWO_DIMENSIONAL, _TISSUE, _CENTIMETRES = 1, 1, 3
# Damaged frames in a row after which a cine is taken to have ended.
_MOST_DAMAGED = 32

_T = TypeVar("_T")


class DicomFile:
    """An opened DICOM file.

    Attributes:
        length: number of frames declared.
        rate_hz: frames a second of a cine, None where unknown.
        pixel_size_mm: edge of a square pixel. From the ultrasound regions (2-D tissue in cm), where all of them agree
            and lie inside the picture (they do not where a picture was resized after it was measured), or from
            Pixel Spacing where there are none; None otherwise, also where what the file says of it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            MissingDependency: pydicom, or Pillow for a compressed file, is not installed.
            BadInput: not DICOM, without a picture, too large or in a transfer syntax that cannot be decoded.
        """
        pydicom = _import_pydicom()
        self._path = path
        self._guard(lambda: _check_not_deflated(pydicom, path))
        self._data = self._guard(lambda: pydicom.dcmread(path, stop_before_pixels=True))
        if not self._data.get("Rows") or not self._data.get("Columns"):
            raise BadInput(f"{path} has no picture in it, expected a DICOM image or cine")
        try:
            check_pixels(int(self._data.Columns), int(self._data.Rows))
        except BadInput as error:
            raise BadInput(f"{path} {error}") from None
        self._plugin = self._guard(lambda: _plugin(self._data))
        self.length = self._guard(lambda: max(1, int(self._data.get("NumberOfFrames") or 1)))
        self._times = _known(lambda: _times(self._data, self.length)) or ()
        self.rate_hz = _rate(self._times)
        self.pixel_size_mm = _known(lambda: _pixel_size(self._data))
        self._palette: Frame | None = self._guard(lambda: _palette(self._data))

    def time_s(self, index: int) -> float | None:
        """Time of a frame since the first one in seconds; None for stills and where no rate is given."""
        return self._times[index] if index < len(self._times) else None

    def frames(self, counts: Counts) -> Iterator[tuple[int, Frame]]:
        """Positions in the file and frames [H, W] gray or [H, W, 3] RGB uint8, one at a time from the file.

        Gray goes through the modality and VOI transforms of the file to 0..255, or from the full range of its stored
        bits where there are none; MONOCHROME1 is inverted. A palette becomes its colours, YBR becomes RGB. Frames in
        the middle that cannot be decoded are passed over and counted in `counts.damaged`.

        Raises:
            BadInput: the last frames cannot be decoded, or there are fewer than declared; what comes before is yielded.
        """
        failure: BadInput | None = None
        pixels: Iterator[Array] | None = None
        missed = 0
        for index in range(self.length):
            try:
                # A decoder that raised is spent: after a damaged frame another one starts behind it.
                pixels = pixels or self._decoder(index)
                frame: Frame = self._guard(partial(self._next, pixels, index))
            except BadInput as error:
                failure, pixels, missed = failure or error, None, missed + 1
                if missed >= _MOST_DAMAGED:
                    break
                continue
            counts.damaged += missed
            failure, missed = None, 0
            yield index, frame
        if failure:
            raise failure

    def _decoder(self, start: int) -> Iterator[Array]:
        from pydicom.pixels import iter_pixels

        indices = range(start, self.length) if start else None
        found: Iterator[Array] = self._guard(
            lambda: iter_pixels(self._path, decoding_plugin=self._plugin, indices=indices)
        )
        return found

    def _next(self, pixels: Iterator[Array], index: int) -> Frame:
        stored: Array | None = next(pixels, None)
        if stored is None:
            raise BadInput(f"{self._path} ends after {index} of {self.length} frames: it is truncated or damaged")
        if self._palette is not None:
            first = self._data.RedPaletteColorLookupTableDescriptor[1]
            entries = np.clip(stored.astype(np.int64) - first, 0, len(self._palette) - 1)
            colours: Frame = self._palette[entries]
            return colours
        return _to_8_bit(stored, self._data)

    def _guard(self, action: Callable[[], Any]) -> Any:
        try:
            return _quietly(action)
        except (BadInput, MissingDependency):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(f"{self._path} cannot be read as DICOM: {reason}") from error


def _quietly(action: Callable[[], _T]) -> _T:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what edgeseg handles
        return action()


def _known(action: Callable[[], _T]) -> _T | None:
    """What a header says beside the picture, None where that is incomplete or has a form that cannot be read."""
    try:
        return _quietly(action)
    except Exception:
        # pydicom converts values when they are asked for, and raises whatever the conversion does.
        return None


def _import_pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ModuleNotFoundError as error:
        if error.name != "pydicom":
            raise
        raise MissingDependency("pydicom", "DICOM input", "dicom") from error
    return pydicom


def _check_not_deflated(pydicom: Any, path: Path) -> None:
    """Raise BadInput where all of the file is deflated: pydicom inflates it at once, however much that is."""
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
        raise BadInput(f"{path} has the deflated transfer syntax, which has no bound in memory: export it uncompressed")


def _plugin(data: Any) -> str:
    """The decoding plugin for a data set; "" for one that is not compressed."""
    from pydicom.pixels import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise BadInput(
            f"{data.filename} has transfer syntax {syntax.name}, which cannot be decoded: export it uncompressed"
        ) from None
    if not syntax.is_encapsulated:
        return ""
    if syntax in dicom_jpeg.SYNTAXES and dicom_jpeg.is_available(syntax):
        if dicom_jpeg.NAME not in decoder.available_plugins:
            decoder.add_plugin(dicom_jpeg.NAME, ("edgeseg.dicom_jpeg", "decode_frame"))
        return dicom_jpeg.NAME
    for name in _PLUGINS:
        if name in decoder.available_plugins:
            return name
    if any("pillow" in wanted for wanted in decoder.missing_dependencies) or syntax in dicom_jpeg.SYNTAXES:
        raise MissingDependency("Pillow", f"{data.filename} ({syntax.name})", "dicom")
    package = _DECODERS.get(syntax)
    what = f"install a decoder with: pip install {package}" if package else "export it uncompressed"
    raise BadInput(f"{data.filename} has transfer syntax {syntax.name}, for which no decoder is installed: {what}")


def _to_8_bit(stored: Array, data: Any) -> Frame:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    if stored.ndim == 3:
        bits = int(data.BitsStored)
        return stored.astype(np.uint8) if bits <= 8 else (stored >> (bits - 8)).astype(np.uint8)
    low, high = _display_range(data)
    shown = apply_voi_lut(apply_modality_lut(stored, data), data)
    if shown.dtype != np.uint8 or (low, high) != (0, 255):
        shown = np.clip(np.rint((shown - low) * (255.0 / (high - low))), 0, 255).astype(np.uint8)
    frame: Frame = shown
    return 255 - frame if data.PhotometricInterpretation == "MONOCHROME1" else frame


def _display_range(data: Any) -> tuple[float, float]:
    """What pydicom's transforms map black and white to: the range of the last look-up table or of the stored bits."""
    for sequence in (data.get("VOILUTSequence"), data.get("ModalityLUTSequence")):
        if sequence:
            return 0.0, float(2 ** int(sequence[0].LUTDescriptor[2]) - 1)
    bits = int(data.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = float(data.get("RescaleSlope") or 1), float(data.get("RescaleIntercept") or 0)
    return low * slope + intercept, high * slope + intercept


def _palette(data: Any) -> Frame | None:
    """The colours [N, 3] uint8 of a PALETTE COLOR picture, None for others."""
    from pydicom.pixels import apply_color_lut

    if data.PhotometricInterpretation != "PALETTE COLOR":
        return None
    count, first, _ = data.RedPaletteColorLookupTableDescriptor
    colours = apply_color_lut(np.arange(first, first + (count or 1 << 16)), data)[:, :3]
    # Some devices declare 16 bits and write 8-bit values.
    if colours.dtype == np.uint16 and colours.max() > 255:
        colours = colours >> 8
    return np.ascontiguousarray(colours.astype(np.uint8))


def _times(data: Any, length: int) -> Sequence[float]:
    """Time of each frame in seconds, empty where unknown. The file's own steps come before any mean rate."""
    if length == 1:
        return ()
    if (steps := data.get("FrameTimeVector")) is not None and len(steps) == length:
        # The first step is 0 by the standard; where it is not, nothing was before the first frame all the same.
        times = np.cumsum(np.asarray(steps, np.float64)) / 1e3
        return [float(t) for t in times - times[0]]
    step = float(data.get("FrameTime") or 0) / 1e3
    rate = float(data.get("CineRate") or data.get("RecommendedDisplayFrameRate") or 0)
    if step <= 0 and rate > 0:
        step = 1 / rate
    return _Steady(step, length) if step > 0 and math.isfinite(step) else ()


@dataclass(frozen=True, slots=True)
class _Steady(Sequence[float]):
    """Times at equal steps: a file may announce more frames than fit into memory."""

    step: float
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return range(self.length)[index] * self.step


def _rate(times: Sequence[float]) -> float | None:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None


def _tissue(data: Any) -> list[Any]:
    return [
        r
        for r in data.get("SequenceOfUltrasoundRegions") or ()
        if r.get("RegionSpatialFormat") == _TWO_DIMENSIONAL and r.get("RegionDataType") == _TISSUE
    ]


def _pixel_size(data: Any) -> float | None:
    if tissue := _tissue(data):
        if any(not _inside(r, data) or not _in_centimetres(r) for r in tissue):
            return None
        return square_mm([10 * abs(float(r[d].value)) for r in tissue for d in ("PhysicalDeltaX", "PhysicalDeltaY")])
    spacing = data.get("PixelSpacing")
    return square_mm([float(s) for s in spacing]) if spacing else None


def _inside(region: Any, data: Any) -> bool:
    return bool(region.RegionLocationMaxX1 <= data.Columns and region.RegionLocationMaxY1 <= data.Rows)


def _in_centimetres(region: Any) -> bool:
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    return units == (_CENTIMETRES, _CENTIMETRES)
