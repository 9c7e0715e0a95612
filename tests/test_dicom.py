from __future__ import annotations

import contextlib
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from edgeseg.errors import BadInput, MissingDependency
from edgeseg.frames import FrameItem, SourceKind, open_frames

DATA = Path(__file__).parents[1] / "../shared/data/dicom_us"


def shared(name: str) -> Path:
    """A real DICOM file; they lie beside the repository, because their licences do not let all of them be shipped."""
    if not DATA.is_dir():
        pytest.skip("the real DICOM files are not beside the repository")
    return DATA / name


RED = (200, 50, 0)


def read(path: Path) -> list[FrameItem]:
    with open_frames(path) as source:
        assert source.kind is SourceKind.DICOM
        items = list(source)
        assert source.length == len(items)
    return items


def write(
    path: Path, pixels: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, data: bytes = b"", **tags: Any
) -> Path:
    """A minimal file from pixels [H, W] or [H, W, 3]; `data` replaces their bytes, `tags` any element."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID
    found.SOPInstanceUID = "1.2.3"
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    found.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = pixels.dtype.itemsize * 8
    found.PixelRepresentation = 0
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    for tag, value in tags.items():
        setattr(found, tag, value)
    found.HighBit = found.BitsStored - 1
    found.PixelData = data or pixels.tobytes()
    found["PixelData"].VR = "OB" if syntax != ExplicitVRLittleEndian or found.BitsAllocated == 8 else "OW"
    found.save_as(path, enforce_file_format=True)
    return path


def jpeg(*, jfif: bool = False, adobe: int | None = None, raw: bool = False) -> bytes:
    """A plain red JPEG 16x16, YCbCr inside unless `raw`, with the markers asked for."""
    mode = Image.new("RGB", (16, 16), RED)
    stream = BytesIO()
    # Raw components: the encoder is told that RGB values are YCbCr, so that it does not convert them.
    source = Image.merge("YCbCr", mode.split()) if raw else mode
    source.save(stream, "JPEG", quality=95, subsampling=0)
    data = stream.getvalue()
    start = data.index(b"\xff\xe0")
    (length,) = struct.unpack_from(">H", data, start + 2)
    markers = data[start : start + 2 + length] if jfif else b""
    if adobe is not None:
        markers += b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([adobe])
    return data[:2] + markers + data[start + 2 + length :]


def test_a_cine_has_times_colours_and_no_pixel_size_where_it_was_resized() -> None:
    items = read(shared("pydicom_examples_ybr_color.dcm"))
    assert len(items) == 30
    assert items[0].frame.shape == (240, 320, 3)
    assert items[29].time_s == pytest.approx(29 * 0.033333)
    assert items[3].name == "pydicom_examples_ybr_color-000003"
    # Its region ends at column 595 of 320: the spacing is that of the picture before it was made smaller.
    assert items[0].pixel_size_mm is None
    # The buttons at the bottom are blue, the picture gray.
    assert float(np.ptp(items[0].frame[40:180].astype(float).mean((0, 1)))) < 2
    red, _, blue = items[0].frame[225:].astype(float).mean((0, 1))
    assert blue > red + 5


def test_jpeg_2000_equals_its_uncompressed_twin() -> None:
    # The twin begins like a TIFF: the free bytes before the mark of a DICOM file may.
    plain, compressed = (read(shared(f"pydicomdata_US1_{kind}.dcm"))[0].frame for kind in ("UNCR", "J2KR"))
    assert np.array_equal(plain, compressed)
    red, _, blue = plain[200:300, 100:500].reshape(-1, 3).astype(float).mean(0)
    assert red > blue + 20  # power Doppler is orange


def test_8_bit_palette() -> None:
    (item,) = read(shared("pydicom_examples_palette.dcm"))
    assert item.frame.shape == (350, 800, 3)
    red, _, blue = item.frame[:40, 200:].reshape(-1, 3).astype(float).mean(0)
    assert blue > red + 20  # the header is blue
    assert item.pixel_size_mm is None  # the region goes below the picture


def test_16_bit_segmented_palette_and_equal_regions() -> None:
    (item,) = read(shared("pydicomdata_gdcm-US-ALOKA-16.dcm"))
    assert item.frame.max() > 200
    green = item.frame.astype(int)
    assert np.count_nonzero((green[:, :, 1] > 150) & (green[:, :, 0] < 80) & (green[:, :, 2] < 80)) > 100  # green marks
    assert item.pixel_size_mm == pytest.approx(0.38265306)


def test_jpeg_lossless_through_its_window() -> None:
    (item,) = read(shared("pydicomdata_JPGLosslessP14SV1_1s_1f_8b.dcm"))
    assert item.frame.shape == (768, 1024)
    assert item.frame.max() == 255  # stored 254, window 127 +- 127
    assert item.pixel_size_mm == pytest.approx(0.2547670)


def test_declared_rgb_with_a_ycbcr_stream_has_right_colours() -> None:
    (item,) = read(shared("sonoque_axial-lateral-resolution-2020.dcm"))
    # A gray picture; taken as RGB it would be green and magenta.
    assert float(np.ptp(item.frame.astype(float), axis=2).mean()) < 1
    assert item.pixel_size_mm == pytest.approx(0.0291)


@pytest.mark.parametrize(
    ("stream", "declared"),
    [
        (jpeg(jfif=True), "RGB"),
        (jpeg(jfif=True), "YBR_FULL_422"),
        (jpeg(adobe=1), "RGB"),
        (jpeg(adobe=1), "YBR_FULL_422"),
        (jpeg(adobe=0, raw=True), "RGB"),
        (jpeg(adobe=0, raw=True), "YBR_FULL_422"),
        # These say nothing of themselves: the declaration is all there is.
        (jpeg(), "YBR_FULL_422"),
        (jpeg(raw=True), "RGB"),
    ],
)
def test_the_stream_decides_its_colours(tmp_path: Path, stream: bytes, declared: str) -> None:
    shape = np.zeros((16, 16, 3), np.uint8)
    data = encapsulate([stream + b"\0" * (len(stream) % 2)])
    path = write(tmp_path / "x.dcm", shape, syntax=JPEGBaseline8Bit, data=data, PhotometricInterpretation=declared)
    pixel = read(path)[0].frame[8, 8].astype(int)
    assert np.abs(pixel - RED).max() <= 3


def test_16_bit_gray_spans_its_stored_bits(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    frame = read(write(tmp_path / "r.dcm", ramp, BitsStored=12))[0].frame
    assert (frame.min(), frame.max()) == (0, 255)
    assert np.abs(frame.astype(float) - ramp / 4095 * 255).max() <= 0.5


def test_window_and_rescale(tmp_path: Path) -> None:
    values = np.array([[0, 500, 1000, 1500, 2000, 4000]], np.uint16)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000.5, "WindowWidth": 2001}
    frame = read(write(tmp_path / "w.dcm", values, BitsStored=12, **tags))[0].frame
    assert frame[0].tolist() == [0, 0, 128, 255, 255, 255]


def test_signed_gray(tmp_path: Path) -> None:
    values = np.array([[-32768, 0, 32767]], np.int16)
    assert read(write(tmp_path / "s.dcm", values, PixelRepresentation=1))[0].frame[0].tolist() == [0, 128, 255]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    values = np.array([[0, 100, 255]], np.uint8)
    path = write(tmp_path / "m.dcm", values, PhotometricInterpretation="MONOCHROME1")
    assert read(path)[0].frame[0].tolist() == [255, 155, 0]


@pytest.mark.parametrize(
    ("tags", "times"),
    [
        ({"FrameTimeVector": [0, 40, 60]}, [0, 0.04, 0.1]),
        ({"FrameTimeVector": [40, 40, 60]}, [0, 0.04, 0.1]),
        ({"FrameTime": 50}, [0, 0.05, 0.1]),
        ({"CineRate": 25}, [0, 0.04, 0.08]),
        ({}, [None] * 3),
    ],
)
def test_times_of_a_cine(tmp_path: Path, tags: dict[str, Any], times: list[float | None]) -> None:
    values = np.zeros((4, 4), np.uint8)
    items = read(write(tmp_path / "c.dcm", values, data=bytes(range(48)), NumberOfFrames=3, **tags))
    assert [i.time_s for i in items] == (times if None in times else pytest.approx(times))
    assert [int(i.frame[0, 0]) for i in items] == [0, 16, 32]


def region(delta_x: float = 0.02, delta_y: float = 0.02, **tags: Any) -> Dataset:
    found = Dataset()
    found.RegionSpatialFormat, found.RegionDataType = 1, 1
    found.RegionLocationMinX0 = found.RegionLocationMinY0 = 0
    found.RegionLocationMaxX1 = found.RegionLocationMaxY1 = 4
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = 3
    found.PhysicalDeltaX, found.PhysicalDeltaY = delta_x, delta_y
    for tag, value in tags.items():
        setattr(found, tag, value)
    return found


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ({"SequenceOfUltrasoundRegions": [region()]}, 0.2),
        ({"SequenceOfUltrasoundRegions": [region(), region(9, 9, RegionDataType=3)]}, 0.2),
        ({"SequenceOfUltrasoundRegions": [region(), region(0.03, 0.03)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(0.02, 0.03)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(PhysicalUnitsYDirection=4)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(RegionLocationMaxX1=9)], "PixelSpacing": [0.5, 0.5]}, None),
        ({"PixelSpacing": [0.5, 0.5]}, 0.5),
        ({"PixelSpacing": [0.5, 0.7]}, None),
        ({}, None),
    ],
)
def test_pixel_size_only_where_there_is_one(tmp_path: Path, tags: dict[str, Any], size: float | None) -> None:
    found = read(write(tmp_path / "p.dcm", np.zeros((4, 4), np.uint8), **tags))[0].pixel_size_mm
    assert found == (size if size is None else pytest.approx(size))


def without(keyword: str) -> Dataset:
    found = region()
    del found[keyword]
    return found


@pytest.mark.parametrize(
    "tags",
    [
        {"SequenceOfUltrasoundRegions": [without("PhysicalDeltaX")]},
        {"SequenceOfUltrasoundRegions": [without("RegionLocationMaxX1")]},
        {"SequenceOfUltrasoundRegions": [region(PhysicalDeltaY=None)]},
        {"PixelSpacing": [0.5]},
        {"PixelSpacing": ["", ""]},
    ],
)
def test_a_pixel_size_that_cannot_be_read_is_unknown_and_the_picture_is_read(
    tmp_path: Path, tags: dict[str, Any]
) -> None:
    (item,) = read(write(tmp_path / "p.dcm", np.full((4, 4), 9, np.uint8), **tags))
    assert item.pixel_size_mm is None
    assert item.frame[0, 0] == 9


def test_a_frame_time_that_is_no_number_is_unknown_and_the_cine_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "c.dcm", np.zeros((4, 4), np.uint8), data=bytes(48), NumberOfFrames=3, FrameTime="77777")
    path.write_bytes(path.read_bytes().replace(b"77777", b"77ms "))
    with open_frames(path) as source:
        assert source.rate_hz is None
        assert [item.time_s for item in source] == [None] * 3


def test_a_deflated_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "z.dcm", np.zeros((4, 4), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(BadInput, match=r"z\.dcm has the deflated transfer syntax.*export it uncompressed"):
        open_frames(path)


def test_a_cine_that_ends_early_gives_what_is_there(tmp_path: Path) -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    stream = jpeg(jfif=True)
    stream += b"\0" * (len(stream) % 2)
    path = write(tmp_path / "c.dcm", frame, syntax=JPEGBaseline8Bit, data=encapsulate([stream] * 2), NumberOfFrames=4)
    source = open_frames(path)
    assert [next(source).index for _ in range(2)] == [0, 1]
    with pytest.raises(BadInput, match=r"c\.dcm"):
        next(source)
    damaged = write(
        tmp_path / "d.dcm", frame, syntax=JPEGBaseline8Bit, data=encapsulate([stream, stream[:200]]), NumberOfFrames=2
    )
    source = open_frames(damaged)
    assert next(source).frame.shape == (16, 16, 3)
    with pytest.raises(BadInput, match=r"d\.dcm"):
        next(source)


def test_damaged_frames_of_a_cine_are_counted_and_the_rest_comes(tmp_path: Path) -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    sound = jpeg(jfif=True)
    sound += b"\0" * (len(sound) % 2)
    fragments = [sound, sound, sound[:200], bytes(200), sound, sound]
    for name, table in (("table", True), ("none", False)):
        data = encapsulate(fragments, has_bot=table)
        path = write(tmp_path / name, frame, syntax=JPEGBaseline8Bit, data=data, NumberOfFrames=6, FrameTime=40)
        with open_frames(path) as source:
            items = list(source)
            assert source.damaged == 2
        assert [i.index for i in items] == [0, 1, 4, 5]
        assert items[2].time_s == pytest.approx(0.16)
        assert np.abs(items[3].frame[8, 8].astype(int) - RED).max() <= 3


def test_the_first_frame_may_be_the_damaged_one(tmp_path: Path) -> None:
    sound = jpeg(jfif=True)
    sound += b"\0" * (len(sound) % 2)
    data = encapsulate([bytes(100), sound])
    path = write(tmp_path / "f", np.zeros((16, 16, 3), np.uint8), syntax=JPEGBaseline8Bit, data=data, NumberOfFrames=2)
    with open_frames(path) as source:
        assert [i.index for i in source] == [1]
        assert source.damaged == 1


def test_a_cine_that_announces_more_than_it_has_ends_soon(tmp_path: Path) -> None:
    sound = jpeg(jfif=True)
    sound += b"\0" * (len(sound) % 2)
    shape = np.zeros((16, 16, 3), np.uint8)
    path = write(
        tmp_path / "many.dcm", shape, syntax=JPEGBaseline8Bit, data=encapsulate([sound]), NumberOfFrames=2_000_000_000
    )
    with open_frames(path) as source, pytest.raises(BadInput, match=r"many\.dcm"):
        list(source)


def test_a_folder_of_dicom_files(tmp_path: Path) -> None:
    one = np.full((4, 4), 50, np.uint8)
    write(tmp_path / "IM10", one)
    write(tmp_path / "IM2", np.zeros((4, 4), np.uint8), data=bytes(range(48)), NumberOfFrames=3, FrameTime=50)
    write(tmp_path / "IM2-000001", one + np.uint8(1))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "readme.txt").write_text("no picture")
    with open_frames(tmp_path) as source:
        assert (source.kind, source.path) == (SourceKind.FOLDER, tmp_path)
        items = list(source)
    assert [int(i.frame[0, 0]) for i in items] == [0, 16, 32, 51, 50]
    assert [i.index for i in items] == [0, 1, 2, 3, 4]
    assert len({i.name for i in items}) == 5
    assert [i.time_s for i in items[:3]] == pytest.approx([0, 0.05, 0.1])
    with open_frames(tmp_path).reopen() as again:
        assert [i.name for i in again] == [i.name for i in items]


def test_a_folder_whose_dicom_file_is_damaged(tmp_path: Path) -> None:
    write(tmp_path / "a", np.full((4, 4), 50, np.uint8))
    (tmp_path / "b").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    source = open_frames(tmp_path)
    next(source)
    with pytest.raises(BadInput, match=r"b cannot be read as DICOM|b has no picture"):
        next(source)


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (HTJ2KLossless, r"High-Throughput JPEG 2000.*pip install pylibjpeg pylibjpeg-openjpeg"),
        (JPEGLSLossless, r"JPEG-LS Lossless.*pip install pyjpegls"),
        ("1.2.840.10008.1.2.4.102", r"MPEG-4.*export it uncompressed"),
        ("1.2.840.10008.1.2.4.92", r"JPEG 2000 Part 2.*export it uncompressed"),
    ],
)
def test_an_unknown_transfer_syntax_names_what_decodes_it(
    tmp_path: Path, syntax: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels import get_decoder

    with contextlib.suppress(NotImplementedError):
        monkeypatch.setattr(get_decoder(UID(syntax)), "_available", {})
    path = write(tmp_path / "x.dcm", np.zeros((4, 4), np.uint8), syntax=syntax, data=encapsulate([b"\0\0"]))
    with pytest.raises(BadInput, match=message) as caught:
        open_frames(path)
    assert "\n" not in str(caught.value)


def test_jpeg_ls_and_its_damage(tmp_path: Path) -> None:
    from jpeg_ls import encode

    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    sound = bytes(encode(ramp))
    sound += b"\0" * (len(sound) % 2)
    path = tmp_path / "l.dcm"
    assert np.array_equal(read(write(path, ramp, syntax=JPEGLSLossless, data=encapsulate([sound])))[0].frame, ramp)
    rng = np.random.default_rng(3)
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(4):
            data[rng.integers(len(data))] = rng.integers(256)
        write(path, ramp, syntax=JPEGLSLossless, data=encapsulate([bytes(data)]))
        with contextlib.suppress(BadInput):
            assert read(path)[0].frame.shape == (16, 16)


def test_what_is_no_picture_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"big\.dcm has 60000x60000 pixels"):
        open_frames(write(tmp_path / "big.dcm", np.zeros((4, 4), np.uint8), Rows=60000, Columns=60000))
    with pytest.raises(BadInput, match="has no picture"):
        open_frames(write(tmp_path / "none.dcm", np.zeros((4, 4), np.uint8), Rows=0))
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    with pytest.raises(BadInput, match=r"x\.dcm"):
        open_frames(tmp_path / "x.dcm")
    mpeg, data = "1.2.840.10008.1.2.4.102", encapsulate([b"\0\0"])
    with pytest.raises(BadInput, match="transfer syntax MPEG-4"):
        open_frames(write(tmp_path / "v.dcm", np.zeros((4, 4), np.uint8), syntax=mpeg, data=data))


def test_truncated_real_files(tmp_path: Path) -> None:
    for source in sorted(shared(".").glob("*.dcm")):
        data = source.read_bytes()
        path = tmp_path / source.name
        path.write_bytes(data[: len(data) // 3])
        with pytest.raises(BadInput, match=source.name):
            list(open_frames(path))


def test_every_corruption_ends_in_a_frame_or_bad_input(tmp_path: Path) -> None:
    # GDCM, which pydicom would prefer, aborts on some of these.
    rng = np.random.default_rng(2)
    for name in ("pydicom_examples_ybr_color.dcm", "pydicomdata_US1_J2KR.dcm"):
        sound = (shared(name)).read_bytes()
        for _ in range(12):
            data = bytearray(sound)
            for _ in range(8):
                data[rng.integers(132, min(len(data), 9000))] = rng.integers(256)
            (tmp_path / "fuzz").write_bytes(data)
            try:
                next(open_frames(tmp_path / "fuzz"))
            except BadInput:
                continue


def test_rle(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write(tmp_path / "r.dcm", values)
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    assert np.array_equal(read(path)[0].frame, values)


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "pydicom":
            raise ModuleNotFoundError("No module named 'pydicom'", name="pydicom")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependency, match=r"pip install 'edgeseg\[dicom\]'"):
        open_frames(shared("pydicomdata_US1_UNCR.dcm"))
