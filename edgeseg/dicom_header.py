"""What a DICOM object that is made of another one takes over from it: a header that references can be built on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeseg.errors import BadInput, MissingDependency

_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# Required too, but what is not known may be empty.
_MAY_BE_EMPTY = (
    *("AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex"),
    *("ReferringPhysicianName", "StudyDate", "StudyID", "StudyTime"),
)
_TEXT = frozenset(("AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UI"))
_SEXES = ("", "F", "M", "O")
UTF_8 = "ISO_IR 192"
_US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"


def read_header(path: Path) -> Any:
    """A pydicom data set of all but the pixels, whose values have forms that the standard allows.

    What has another form is left out or, where it is required, empty; so is what is required and not there.

    Raises:
        BadInput: it is no DICOM image, or has no unique identifiers to refer to.
    """
    import pydicom

    with source_errors(path):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in _REQUIRED:
            if not header.get(keyword):
                raise BadInput(f"{path} has no {keyword}, which a segmentation of it must refer to: export it again")
        if not header.get("Rows") or not header.get("Columns"):
            raise BadInput(f"{path} has no picture in it, expected a DICOM image or cine")
        header.remove_private_tags()
        for element in list(header):
            if not _is_valid(element):
                del header[element.tag]
        if header.get("PatientSex") not in _SEXES:
            header.PatientSex = ""
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, "")
    return header


def _is_valid(element: Any) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    if element.VR not in _TEXT:
        return True
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            validate_value(element.VR, str(value or ""), RAISE)
    except ValueError:
        return False
    return True


def as_one_frame(header: Any) -> Any:
    """The header as that of one frame; without a frame of reference where it does not say where in it the frame is."""
    found = copy.deepcopy(header)  # a copy of pydicom's is not independent
    # One that needs no functional groups; the object's references get the true one back.
    found.SOPClassUID = _US_IMAGE
    found.SpecificCharacterSet = UTF_8
    position = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if frames_of(header) > 1 or any(not header.get(keyword) for keyword in position):
        # Pixel measures are allowed in a frame of reference only (PS3.3 A.51.5).
        for keyword in position:
            found.pop(keyword, None)
    elif "SliceThickness" not in found:
        found.SliceThickness = None
    return found


def frames_of(header: Any) -> int:
    """How many frames the image has."""
    return max(1, int(header.get("NumberOfFrames") or 1))


@contextmanager
def source_errors(source: Path) -> Iterator[None]:
    """Turn whatever pydicom and highdicom raise about a source into a BadInput, and keep their warnings quiet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadInput, MissingDependency):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"no segmentation can be made of {source}: {reason}") from error
