from __future__ import annotations

import builtins
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation, segread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from edgeseg.dicom_codes import ABNORMAL, ANATOMY, TABLE, Code, SegmentCode, code_of, read_codes
from edgeseg.dicom_seg import Algorithm, SegmentationWriter
from edgeseg.errors import BadInput, MissingDependency
from edgeseg.frames import open_frames

DATA = Path(__file__).parents[1] / "../shared/data/dicom_us"
CLASSES = ("background", "fetal head", "Schädelrest 2")
ALGORITHM = Algorithm("head", "openvino-int8", "ab" * 32, "openvino cpu", {"smoothing": "0.5"})
US_IMAGE, US_CINE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"


def shared(name: str) -> Path:
    """A real DICOM file; they lie beside the repository, because their licences do not let all of them be shipped."""
    if not DATA.is_dir():
        pytest.skip("the real DICOM files are not beside the repository")
    return DATA / name


def source_file(path: Path, count: int = 1, size: tuple[int, int] = (5, 7), **tags: Any) -> Path:
    """A small ultrasound image or, of several frames, cine."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID = US_IMAGE if count == 1 else US_CINE
    found.SOPInstanceUID, found.SeriesInstanceUID, found.StudyInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    found.Modality = "US"
    found.PatientName, found.PatientID = "Doe^Jane", "17"
    found.Rows, found.Columns = size
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit, found.PixelRepresentation = 7, 0
    if count > 1:
        found.NumberOfFrames, found.FrameTime = count, 40
    for tag, value in tags.items():
        setattr(found, tag, value)
    found.PixelData = bytes(count * size[0] * size[1] + count * size[0] * size[1] % 2)
    found["PixelData"].VR = "OB"
    found.save_as(path, enforce_file_format=True)
    return path


def masks_of(count: int, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 3, (count, *size)).astype(np.uint8))


def write(path: Path, source: Path, masks: dict[int, np.ndarray], **options: Any) -> Segmentation:
    with SegmentationWriter(path, source, CLASSES, ALGORITHM, **options) as writer:
        for index, mask in masks.items():
            writer.write(index, mask)
        assert not path.exists()
    return segread(path)


def pixels(found: Segmentation, source: Path, indices: list[int]) -> np.ndarray:
    """[N, H, W] class indices, found by the references to the source's frames."""
    header = pydicom.dcmread(source, stop_before_pixels=True)
    if int(header.get("NumberOfFrames") or 1) > 1:
        segments = found.get_pixels_by_source_frame(header.SOPInstanceUID, [i + 1 for i in indices])
    else:
        segments = found.get_pixels_by_source_instance([header.SOPInstanceUID])
    assert segments.max() <= 1
    return (segments * np.arange(1, segments.shape[-1] + 1)).sum(-1).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "pydicom_examples_palette",
        "pydicom_examples_ybr_color",
        "pydicomdata_JPGLosslessP14SV1_1s_1f_8b",
        "pydicomdata_US1_J2KR",
        "pydicomdata_US1_UNCR",
        "pydicomdata_gdcm-US-ALOKA-16",
    ],
)
def test_real_files_come_back_pixel_equal_through_their_references(tmp_path: Path, name: str) -> None:
    source = shared(f"{name}.dcm")
    with open_frames(source) as frames:
        masks = {item.index: masks_of(1, item.frame.shape[:2], item.index)[0] for item in frames}
    found = write(tmp_path / "s.dcm", source, masks)
    assert np.array_equal(pixels(found, source, list(masks)), np.stack(list(masks.values())))
    header = pydicom.dcmread(source, stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "StudyDate", "StudyID", "PatientID", "PatientName", "PatientSex"):
        assert found.get(keyword) == header.get(keyword)
    assert found.SeriesInstanceUID != header.SeriesInstanceUID
    (series,) = found.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == header.SeriesInstanceUID
    for reference in (found.SourceImageSequence[0], series.ReferencedInstanceSequence[0]):
        assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == header.SOPClassUID
    assert "FrameOfReferenceUID" not in found


@pytest.mark.parametrize("size", [(5, 7), (8, 16), (3, 3)])
def test_each_frame_of_a_cine_refers_to_its_own(tmp_path: Path, size: tuple[int, int]) -> None:
    # Frame 2 could not be decoded: those after it keep their numbers.
    source = source_file(tmp_path / "c.dcm", 5, size)
    masks = dict(zip((0, 1, 3, 4), masks_of(4, size), strict=True))
    masks[1][:] = 0
    found = write(tmp_path / "s.dcm", source, masks)
    assert np.array_equal(pixels(found, source, [0, 1, 3, 4]), np.stack(list(masks.values())))
    assert found.NumberOfFrames == 8
    seen = []
    for groups in found.PerFrameFunctionalGroupsSequence:
        (derivation,) = groups.DerivationImageSequence
        (reference,) = derivation.SourceImageSequence
        content = groups.FrameContentSequence[0]
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (US_CINE, "1.2.3.1")
        assert derivation.DerivationCodeSequence[0].CodeValue == "113076"
        assert content.TemporalPositionIndex == reference.ReferencedFrameNumber
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        seen.append((reference.ReferencedFrameNumber, segment, tuple(content.DimensionIndexValues)))
    positions = {1: 1, 2: 2, 4: 3, 5: 4}
    assert seen == [(number, s, (positions[number], s)) for number in positions for s in (1, 2)]


def test_one_class_of_a_cine(tmp_path: Path) -> None:
    source = source_file(tmp_path / "c.dcm", 3)
    masks = [m & 1 for m in masks_of(3, (5, 7))]
    with SegmentationWriter(tmp_path / "s.dcm", source, CLASSES[:2], ALGORITHM) as writer:
        for index, mask in enumerate(masks):
            writer.write(index, mask)
    assert np.array_equal(pixels(segread(tmp_path / "s.dcm"), source, [0, 1, 2]), np.stack(masks))


def test_empty_masks_are_empty_frames(tmp_path: Path) -> None:
    source = source_file(tmp_path / "i.dcm")
    found = write(tmp_path / "s.dcm", source, {0: np.zeros((5, 7), np.uint8)})
    assert found.NumberOfFrames == 2
    assert not found.pixel_array.any()


def test_segments_say_what_they_are_and_what_made_them(tmp_path: Path) -> None:
    found = write(tmp_path / "s.dcm", source_file(tmp_path / "i.dcm"), {0: masks_of(1, (5, 7))[0]})
    head, rest = found.SegmentSequence
    assert (head.SegmentLabel, rest.SegmentLabel) == ("fetal head", "Schädelrest 2")
    kind = head.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("69536005", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Fetus"
    own = rest.SegmentedPropertyTypeCodeSequence[0]
    assert (own.CodeValue, own.CodingSchemeDesignator, own.CodeMeaning) == (
        "SCH_DELREST_2",
        "99EDGESEG",
        "Schädelrest 2",
    )
    algorithm = head.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("head", "openvino-int8 abababababab")
    for part in ("edgeseg=", f"sha256={'ab' * 32}", "runtime=openvino cpu", "smoothing=0.5"):
        assert part in algorithm.AlgorithmParameters
    assert (head.SegmentAlgorithmType, found.SegmentationType) == ("AUTOMATIC", "BINARY")


def test_nothing_of_the_patient_is_added_and_nothing_wrong_is_kept(tmp_path: Path) -> None:
    tags = {"PatientSex": "FEMALE", "PatientBirthDate": "about 1990", "PatientName": "--", "AccessionNumber": "7"}
    with pytest.warns(UserWarning, match="Invalid value"):
        source = source_file(tmp_path / "i.dcm", **tags, PerformingPhysicianName="Roe^Richard")
    found = write(tmp_path / "s.dcm", source, {0: masks_of(1, (5, 7))[0]})
    assert (found.PatientSex, found.PatientBirthDate, found.AccessionNumber) == ("", "", "7")
    assert (found.StudyID, found.StudyDate, found.ReferringPhysicianName) == ("", "", "")
    assert "PerformingPhysicianName" not in found
    assert "StudyDescription" not in found
    assert found.ContentCreatorName == ""


def test_names_in_other_alphabets(tmp_path: Path) -> None:
    tags = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    found = write(tmp_path / "s.dcm", source_file(tmp_path / "i.dcm", **tags), {0: masks_of(1, (5, 7))[0]})
    assert str(found.PatientName) == tags["PatientName"]
    assert found.SpecificCharacterSet == "ISO_IR 192"


def test_a_frame_of_reference_is_kept_where_it_can_be_used(tmp_path: Path) -> None:
    position = {
        "FrameOfReferenceUID": "1.2.3.4",
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 1,
    }
    mask = masks_of(1, (5, 7))[0]
    placed = source_file(tmp_path / "p.dcm", **position)
    found = write(tmp_path / "ps.dcm", placed, {0: mask})
    assert found.FrameOfReferenceUID == "1.2.3.4"
    assert found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.5]
    assert np.array_equal(pixels(found, placed, [0])[0], mask)
    del position["ImagePositionPatient"]
    nowhere = write(tmp_path / "ns.dcm", source_file(tmp_path / "n.dcm", **position), {0: mask})
    assert "FrameOfReferenceUID" not in nowhere
    assert "PixelMeasuresSequence" not in nowhere.SharedFunctionalGroupsSequence[0]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_source_that_cannot_be_referred_to_is_refused(tmp_path: Path, keyword: str) -> None:
    source = source_file(tmp_path / "i.dcm")
    data = pydicom.dcmread(source)
    delattr(data, keyword)
    data.save_as(source)
    with pytest.raises(BadInput, match=rf"i\.dcm has no {keyword}"):
        SegmentationWriter(tmp_path / "s.dcm", source, CLASSES, ALGORITHM)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    source, mask = source_file(tmp_path / "c.dcm", 2), masks_of(1, (5, 7))[0]
    for index, wrong, said in ((0, mask.T, "expected uint8"), (0, mask.astype(int), "int64"), (2, mask, "no frame 2")):
        with (
            pytest.raises(BadInput, match=said),
            SegmentationWriter(tmp_path / "s.dcm", source, CLASSES, ALGORITHM) as writer,
        ):
            writer.write(index, wrong)
    with SegmentationWriter(tmp_path / "s.dcm", source, CLASSES, ALGORITHM):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["c.dcm"]


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    source, mask = source_file(tmp_path / "i.dcm"), masks_of(1, (5, 7))[0]
    with (
        pytest.raises(BadInput, match=r"/proc/s\.dcm cannot be written"),
        SegmentationWriter("/proc/s.dcm", source, CLASSES, ALGORITHM) as writer,
    ):
        writer.write(0, mask)


def test_without_highdicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, real = source_file(tmp_path / "i.dcm"), builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "highdicom":
            raise ModuleNotFoundError("No module named 'highdicom'", name="highdicom")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependency, match=r"pip install 'edgeseg\[dicom-seg\]'"):
        SegmentationWriter(tmp_path / "s.dcm", source, CLASSES, ALGORITHM)


def test_the_table_is_the_standard_s() -> None:
    # pydicom carries the terms of PS3.16.
    from pydicom.sr._concepts_dict import concepts

    known = {
        (scheme, value): {terms[value][0] for terms in concepts[scheme].values() if value in terms}
        for scheme, value in {(c.scheme, c.value) for s in TABLE.values() for c in (s.category, s.type)}
    }
    for found in TABLE.values():
        for code in (found.category, found.type):
            assert code.meaning in known[code.scheme, code.value]
    assert "Artificial Intelligence" in {m for m, _ in concepts["DCM"]["ArtificialIntelligence"].values()}
    assert "123110" in concepts["DCM"]["ArtificialIntelligence"]


def test_codes_by_name(tmp_path: Path) -> None:
    assert code_of("Left_Ventricle") == code_of("left ventricle") == TABLE["left ventricle"]
    assert code_of("cyst").category == ABNORMAL
    own = tmp_path / "codes.toml"
    own.write_text(
        '["Left Ventricle"]\ntype = ["1", "99X", "Mine"]\n'
        '[b]\ncategory = ["2", "99X", "c"]\ntype = ["3", "99X", "t"]\nmodifier = ["4", "99X", "m"]\n'
    )
    codes = read_codes(own)
    assert code_of("left-ventricle", codes) == SegmentCode(ANATOMY, Code("1", "99X", "Mine"))
    assert code_of("B", codes).category == Code("2", "99X", "c")
    assert code_of("B", codes).modifier == Code("4", "99X", "m")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type = 1", "must be a table"),
        ('[a]\ncategory = ["1", "2", "3"]', "must be a table of type"),
        ('[a]\ntype = ["1", "2"]', "expected"),
        ('[a]\ntype = ["12345678901234567", "SCT", "x"]', "at most 16"),
        ('[a]\ntype = ["1", "SCT", "x"]\nkind = 3', "must be a table of type"),
        ("[a", "is no TOML file"),
    ],
)
def test_codes_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BadInput, match=said):
        read_codes(tmp_path / "c.toml")
    with pytest.raises(BadInput, match="cannot be read"):
        read_codes(tmp_path / "none.toml")


DOCUMENT = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return text


def test_the_documentation_has_the_table_and_codes_that_can_be_read(tmp_path: Path) -> None:
    words = " ".join(DOCUMENT.split())
    for name, found in TABLE.items():
        assert f"{name} {found.type.value}" in words
    (tmp_path / "codes.toml").write_text(block("toml"))
    assert read_codes(tmp_path / "codes.toml")["head"] == TABLE["fetal head"]


def test_the_documentation_s_way_to_read_an_object_works(tmp_path: Path) -> None:
    source = source_file(tmp_path / "cine.dcm", 3)
    write(tmp_path / "cine_seg.dcm", source, dict(enumerate(masks_of(3, (5, 7)))))
    done = subprocess.run(
        [sys.executable, "-c", block("python")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"(3, 5, 7, 2) {list(CLASSES[1:])}\n", done.stderr
