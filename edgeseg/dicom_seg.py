"""Masks of a DICOM image or cine as a DICOM Segmentation object. Needs the extra `dicom-seg`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgeseg.dicom_codes import Code, SegmentCode, code_of
from edgeseg.dicom_header import UTF_8, as_one_frame, frames_of, read_header, source_errors
from edgeseg.durable import new_file
from edgeseg.errors import BadInput, MissingDependency
from edgeseg.types import Mask

_MODEL_FAMILY = Code("123110", "DCM", "Artificial Intelligence")
_LONGEST = 64  # characters of a DICOM long string
_MOST_BYTES = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What made the masks, for the object's algorithm identification.

    Attributes:
        name: of the bundle.
        artifact: its artifact that ran, as in "openvino-int8".
        sha256: of that artifact's model file.
        runtime: the engine and device, as in "openvino cpu".
        parameters: what else the masks depend on, as in {"smoothing": "0.5"}.
    """

    name: str
    artifact: str
    sha256: str
    runtime: str
    parameters: Mapping[str, str] = field(default_factory=dict)


class SegmentationWriter:
    """Writes masks of a DICOM file's frames as one Segmentation object, which appears when the block ends well.

    Every foreground class is a binary segment with a frame for each mask, empty where the class is not seen. Each frame
    of a segment refers to the SOP instance and the frame it was made of. Patient and study are the source's, with
    nothing added; what the source says in a form that the standard does not allow stays empty.

    Attributes:
        path: of the object.
        frames: masks written so far.
    """

    def __init__(
        self,
        path: Path | str,
        source: Path | str,
        classes: Sequence[str],
        algorithm: Algorithm,
        *,
        codes: Mapping[str, SegmentCode] | None = None,
    ) -> None:
        """Read the header of the source.

        Args:
            path: where the object goes.
            source: the DICOM file that the frames are from.
            classes: class names of the masks; index 0 is the background.
            algorithm: what makes the masks.
            codes: coded terms by class name, before those of `edgeseg.dicom_codes`.

        Raises:
            MissingDependency: highdicom is not installed.
            BadInput: the source is no DICOM image, or lacks what the object has to refer to; or a class is no name.
        """
        check_available()
        self.path = Path(path)
        self.frames = 0
        self._source = Path(source)
        self._header = read_header(self._source)
        self._classes = tuple(classes)
        self._algorithm = algorithm
        self._codes = codes or {}
        self._first: Mask | None = None
        self._indices: list[int] = []
        self._bits = _Bits()

    def write(self, index: int, mask: Mask) -> None:
        """Take the mask of a frame.

        Args:
            index: of the frame in the source, from 0, higher than those before.
            mask: [H, W] uint8 class indices, of the source's size.

        Raises:
            BadInput: the mask or the index does not fit to the source, or the object becomes larger than 4 GiB.
        """
        size = (int(self._header.Rows), int(self._header.Columns))
        if mask.shape != size or mask.dtype != np.uint8:
            raise BadInput(f"mask is {mask.dtype} of shape {mask.shape}, expected uint8 {size} as {self._source} has")
        if not (self._indices[-1] if self._indices else -1) < index < frames_of(self._header):
            raise BadInput(f"{self._source} has no frame {index} after {self.frames} others")
        if self._first is None:
            self._first = mask.copy()
        for label in range(1, len(self._classes)):
            self._bits.append(mask == label)
        if self._bits.size > _MOST_BYTES:
            raise BadInput(f"{self.path} would be larger than 4 GiB: segment a shorter part of {self._source}")
        self._indices.append(index)
        self.frames += 1

    def __enter__(self) -> SegmentationWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._first is None:
            return
        with source_errors(self._source):
            found = self._object(self._first)
        try:
            with new_file(self.path) as stream:
                found.save_as(stream, enforce_file_format=True)
        except OSError as problem:
            raise BadInput(f"{self.path} cannot be written: {problem.strerror or problem}") from problem

    def _object(self, first: Mask) -> Any:
        """The whole object: highdicom's of the first frame, with the frames of a cine put in."""
        found = self._single(first)
        found.SpecificCharacterSet = UTF_8  # patients and classes have names in any alphabet
        if "FrameOfReferenceUID" not in found:
            found.PatientOrientation = self._header.get("PatientOrientation") or ""
        # One item, which the referenced series has too.
        references = [found.SourceImageSequence[0]]
        for groups in found.PerFrameFunctionalGroupsSequence:
            references.append(groups.DerivationImageSequence[0].SourceImageSequence[0])
        for reference in references:
            reference.ReferencedSOPClassUID = self._header.SOPClassUID
        if frames_of(self._header) > 1:
            self._spread(found)
        return found

    def _single(self, first: Mask) -> Any:
        import highdicom

        from edgeseg import __version__

        return highdicom.seg.Segmentation(
            source_images=[as_one_frame(self._header)],
            pixel_array=first,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[self._describe(i, c) for i, c in enumerate(self._classes[1:], start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=1000 + max(0, int(self._header.get("SeriesNumber") or 0)),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="edgeseg",
            manufacturer_model_name=self._algorithm.name[:_LONGEST],
            software_versions=__version__,
            device_serial_number=self._algorithm.sha256[:_LONGEST],
            content_label="SEGMENTATION",
            content_description="",
            content_creator_name="",
            series_description="Segmentation by edgeseg",
            omit_empty_frames=False,
        )

    def _describe(self, number: int, label: str) -> Any:
        import highdicom

        from edgeseg import __version__

        code = code_of(label, self._codes)
        parameters = {"edgeseg": __version__, "sha256": self._algorithm.sha256, "runtime": self._algorithm.runtime}
        found = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label[:_LONGEST],
            segmented_property_category=_concept(code.category),
            segmented_property_type=_concept(code.type),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=self._algorithm.name[:_LONGEST],
                family=_concept(_MODEL_FAMILY),
                version=f"{self._algorithm.artifact} {self._algorithm.sha256[:12]}",
                source="edgeseg",
                parameters=parameters | dict(self._algorithm.parameters),
            ),
        )
        if code.modifier:
            found.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
                _concept(code.modifier)
            ]
        return found

    def _spread(self, found: Any) -> None:
        """Give an object of one frame those of the cine, in the order of time.

        highdicom 0.28 has no segmentation of several frames without a frame of reference (its issue 284), which
        ultrasound has none of. PS3.3 A.51.5.1 asks for the reference of each frame to its source; the dimension that
        tells them apart is their position in time.
        """
        from pydicom.dataset import Dataset
        from pydicom.tag import Tag

        shared = found.SharedFunctionalGroupsSequence[0]
        identification = shared.pop("SegmentIdentificationSequence", None)
        templates = list(found.PerFrameFunctionalGroupsSequence)
        if identification is not None:
            templates[0].SegmentIdentificationSequence = identification.value
        found.PerFrameFunctionalGroupsSequence = [
            _of_frame(template, position, index + 1, segment)
            for position, index in enumerate(self._indices, start=1)
            for segment, template in enumerate(templates, start=1)
        ]
        time = Dataset()
        time.DimensionIndexPointer = Tag("TemporalPositionIndex")
        time.FunctionalGroupPointer = Tag("FrameContentSequence")
        time.DimensionOrganizationUID = found.DimensionIndexSequence[0].DimensionOrganizationUID
        time.DimensionDescriptionLabel = "Temporal Position Index"
        found.DimensionIndexSequence.insert(0, time)
        found.NumberOfFrames = len(found.PerFrameFunctionalGroupsSequence)
        found.PixelData = self._bits.padded()


def check_available() -> None:
    """Raise MissingDependency where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("highdicom", "pydicom"):
            raise
        raise MissingDependency("highdicom", "a DICOM Segmentation object", "dicom-seg") from error


class _Bits:
    """One-bit pixels, packed as DICOM has them: the first pixel is the lowest bit, frames follow without a gap."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._rest = np.empty(0, np.bool_)

    @property
    def size(self) -> int:
        return len(self._packed)

    def append(self, pixels: Any) -> None:
        """Add pixels of any shape, bool."""
        flat = np.concatenate((self._rest, pixels.ravel())) if self._rest.size else pixels.ravel()
        whole = flat.size - flat.size % 8
        self._packed += np.packbits(flat[:whole], bitorder="little").tobytes()
        self._rest = flat[whole:].copy()

    def padded(self) -> bytes:
        """All of them, to an even number of bytes."""
        data = bytes(self._packed) + np.packbits(self._rest, bitorder="little").tobytes()
        return data + b"\0" * (len(data) % 2)


def _of_frame(template: Any, position: int, number: int, segment: int) -> Any:
    groups = copy.deepcopy(template)
    content = groups.FrameContentSequence[0]
    content.TemporalPositionIndex = number
    content.DimensionIndexValues = [position, segment]
    groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number
    return groups


def _concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
