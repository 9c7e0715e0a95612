from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from edgeseg.bundle import file_record, write_manifest
from edgeseg.durable import new_folder
from edgeseg.frames import open_frames, read_image
from edgeseg.testing import PROBE
from edgeseg.types import Artifact, Format, Manifest, Precision, Preprocess, TensorSpec

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the probe model, which segments what is bright, as the fake runtime does too."""
    path = tmp_path_factory.mktemp("bundle") / "head.edgeseg"
    with new_folder(path) as folder:
        (folder / "artifacts").mkdir()
        model = folder / "artifacts" / "model.onnx"
        shutil.copy(PROBE / "probe.onnx", model)
        artifact = Artifact(
            Format.ONNX,
            Precision.FP32,
            (file_record(model, folder),),
            (TensorSpec("image", (1, 3, 24, 32)),),
            (TensorSpec("logits", (1, 2, 24, 32)),),
        )
        write_manifest(folder, Manifest("head", ("background", "head"), Preprocess(24, 32, 3), (artifact,)))
    return path


def frame(index: int = 0, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A bright ellipse of semi-axes 40 x 30 on black, which moves with the index."""
    image = np.zeros(shape, np.uint8)
    cv2.ellipse(image, (60 + index, 48), (40, 30), 0, 0, 360, 255, -1)
    return image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "images"
    folder.mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(folder / f"f{index}.png"), frame(index))
    (tmp_path / "in" / "index.csv").write_text("file,pixel_size_mm\nf0.png,0.5\nf1.png,0.5\n")
    return tmp_path / "in"


def edgeseg(*arguments: object, runtime: str = "fake") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeseg.cli", "run", *map(str, arguments), "--runtime", runtime]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("runtime", ["fake", "onnxruntime"])
def test_a_folder_gives_masks_overlays_and_figures(bundle: Path, images: Path, tmp_path: Path, runtime: str) -> None:
    out = tmp_path / "out"
    done = edgeseg(bundle, images, "-o", out, runtime=runtime)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    names = ["f0.png", "f1.png", "f2.png"]
    assert sorted(p.name for p in (out / "masks").iterdir()) == names
    assert sorted(p.name for p in (out / "overlays").iterdir()) == names
    for index, name in enumerate(names):
        mask = read_image(out / "masks" / name)
        assert mask.shape == (HEIGHT, WIDTH)
        assert set(np.unique(mask)) == {0, 1}
        assert np.mean(mask == (frame(index) > 0)) > 0.97
        overlay = read_image(out / "overlays" / name)
        assert overlay.shape == (HEIGHT, WIDTH, 3)
        assert overlay[48, 60 + index, 0] < overlay[48, 60 + index, 2]  # tinted
    found = rows(out / "results.csv")
    assert [(r["frame"], r["index"], r["class"]) for r in found] == [(f"f{i}", str(i), "head") for i in range(3)]
    area, around = float(found[0]["area_mm2"]), float(found[0]["circumference_mm"])
    assert area == pytest.approx(np.pi * 20 * 15, rel=0.1)
    assert around == pytest.approx(110.5, rel=0.05)
    assert int(found[0]["area_px"]) * 0.25 == pytest.approx(area, abs=0.01)
    assert (found[2]["area_mm2"], found[2]["circumference_mm"], found[2]["time_s"]) == ("", "", "")


def test_the_closing_line_says_what_ran(bundle: Path, images: Path, tmp_path: Path) -> None:
    line = edgeseg(bundle, images, "-o", tmp_path / "out").stdout
    assert line.count("\n") == 1
    for part in ("3 frames", "preprocess", "infer", "postprocess", "onnx-fp32 on fake cpu", str(tmp_path / "out")):
        assert part in line


def write_clip(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (WIDTH, HEIGHT))
    for index in range(count):
        writer.write(cv2.cvtColor(frame(index), cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_a_clip_gives_a_clip(bundle: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    done = edgeseg(bundle, write_clip(tmp_path / "in.avi", 6), "-o", out, "--csv", tmp_path / "figures.csv")
    assert done.returncode == 0, done.stderr
    with open_frames(out) as source:
        assert source.rate_hz == pytest.approx(20)
        shapes = [item.frame.shape for item in source]
    assert shapes == [(HEIGHT, WIDTH, 3)] * 6
    assert [float(r["time_s"]) for r in rows(tmp_path / "figures.csv")] == pytest.approx([i / 20 for i in range(6)])


def test_a_truncated_clip_keeps_its_results_and_fails(bundle: Path, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for out in (tmp_path / "out", tmp_path / "out.mp4"):
        done = edgeseg(bundle, path, "-o", out)
        assert "of 40 frames" in one_line(done)
        assert out.exists()
    masks = len(list((tmp_path / "out" / "masks").iterdir()))
    assert 10 < masks < 40
    assert len(rows(tmp_path / "out" / "results.csv")) == masks


def test_damaged_frames_are_counted_in_the_closing_lines(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "d.avi", 12)
    data = bytearray(clip.read_bytes())
    pictures = [match.start() for match in re.finditer(rb"\xff\xd8\xff", bytes(data))]
    for start, end in (pictures[4:6], pictures[7:9]):
        data[start : end - 8] = bytes(end - 8 - start)  # all but the header of the next chunk
    clip.write_bytes(data)
    done = edgeseg(bundle, clip, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].startswith("10 frames, ")
    assert done.stdout.splitlines()[-1] == "2 damaged frames left out"
    assert len(rows(tmp_path / "out" / "results.csv")) == 10


def test_a_second_run_leaves_no_old_masks(bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert edgeseg(bundle, images, "-o", out).returncode == 0
    assert edgeseg(bundle, images / "images" / "f1.png", "-o", out).returncode == 0
    assert [p.name for p in (out / "masks").iterdir()] == ["f1.png"]
    assert [r["frame"] for r in rows(out / "results.csv")] == ["f1"]


def test_figures_in_a_file_of_their_own_are_in_the_folder_too(bundle: Path, images: Path, tmp_path: Path) -> None:
    """A folder knows by them what the next run has to remove."""
    out, own = tmp_path / "out", tmp_path / "own.csv"
    assert edgeseg(bundle, images, "-o", out, "--csv", own).returncode == 0
    assert rows(own) == rows(out / "results.csv")
    assert len(rows(own)) == 3
    again = tmp_path / "out" / ".." / "out" / "results.csv"
    assert edgeseg(bundle, images / "images" / "f1.png", "-o", out, "--csv", again).returncode == 0
    assert [p.name for p in (out / "masks").iterdir()] == ["f1.png"]
    assert [r["frame"] for r in rows(out / "results.csv")] == ["f1"]


def test_the_input_is_never_overwritten(bundle: Path, tmp_path: Path) -> None:
    clip, cine = write_clip(tmp_path / "in.avi", 6), write_dicom(tmp_path / "in.dcm", 3)
    for path in (clip, cine):
        before = path.read_bytes()
        assert "will not be overwritten" in one_line(edgeseg(bundle, path, "-o", tmp_path / "." / path.name))
        assert path.read_bytes() == before


def test_reference_masks_are_never_overwritten(bundle: Path, images: Path) -> None:
    (images / "masks").mkdir()
    (images / "masks" / "f0.png").write_bytes(b"drawn by an expert")
    assert "no run made" in one_line(edgeseg(bundle, images, "-o", images))
    (images / "results.csv").write_text("patient,age\n1,2\n")
    assert "no run made" in one_line(edgeseg(bundle, images, "-o", images))
    assert (images / "masks" / "f0.png").read_bytes() == b"drawn by an expert"


def test_frame_names_do_not_leave_the_folder(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    # A slash cannot be in a file's name, a backslash, a control character and outer dots can.
    for name in ("x\\..\\..\\y.png", "a\nb.png", "x...png", "=cmd().png", "a b.png"):
        cv2.imwrite(str(folder / "tmp.png"), frame())
        (folder / "tmp.png").rename(folder / name)
    done = edgeseg(bundle, folder, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    names = {r["frame"] for r in rows(tmp_path / "out" / "results.csv")}
    assert len(names) == len(list(folder.iterdir()))
    assert all(c.isalnum() or c in "_-." for name in names for c in name)
    assert {p.stem for p in (tmp_path / "out" / "masks").iterdir()} == names


def test_frames_of_several_sizes(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index, shape in enumerate([(1, 1), (97, 131), (1000, 40)]):
        cv2.imwrite(str(folder / f"{index}.png"), frame(shape=shape))
    assert edgeseg(bundle, folder, "-o", tmp_path / "out").returncode == 0
    shapes = [read_image(p).shape for p in sorted((tmp_path / "out" / "masks").iterdir())]
    assert shapes == [(1, 1), (97, 131), (1000, 40)]
    assert "frames of several sizes" in one_line(edgeseg(bundle, folder, "-o", tmp_path / "out.mp4"))
    assert not (tmp_path / "out.mp4").exists()


def test_outputs_that_cannot_be(bundle: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    for out, said in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "none" / "x.mp4", "is not a folder"),
        (Path("/proc/out"), "cannot be written"),
        (tmp_path / "file" / "below", "cannot be written"),
        (tmp_path, "no run made"),
        (tmp_path / "out.mov", "cannot be written as .mov"),
        (tmp_path / "out.PNG", "expected a folder or a name in .mp4, .avi or .dcm"),
    ):
        assert said in one_line(edgeseg(bundle, images, "-o", out))
    assert (tmp_path / "file").read_text() == "mine"
    assert "cannot be written" in one_line(edgeseg(bundle, images, "-o", tmp_path / "out", "--csv", "/proc/x.csv"))


def test_bad_inputs_leave_no_output(bundle: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty").mkdir()
    for source in ("broken.png", "none.png", "empty"):
        assert source in one_line(edgeseg(bundle, tmp_path / source, "-o", tmp_path / "out"))
        assert not (tmp_path / "out").exists()
    assert "is not a bundle" in one_line(edgeseg(tmp_path / "none", images, "-o", tmp_path / "out"))
    assert "fp16" in one_line(edgeseg(bundle, images, "-o", tmp_path / "out", "--precision", "fp16"))
    assert "gpu" in one_line(edgeseg(bundle, images, "-o", tmp_path / "out", "--device", "gpu"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [["--runtime", "tensorflow"], ["--threads", "0"], ["--precision", "int4"], []])
def test_bad_usage_is_2(bundle: Path, images: Path, tmp_path: Path, wrong: list[str]) -> None:
    output = ["-o", str(tmp_path / "out")] if wrong else []
    command = [sys.executable, "-m", "edgeseg.cli", "run", str(bundle), str(images), *output, *wrong]
    one_line(subprocess.run(command, capture_output=True, text=True, check=False), 2)


def write_dicom(path: Path, count: int, **tags: object) -> Path:
    """A gray ultrasound image or, of several frames, cine."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{'3.1' if count > 1 else '6.1'}"
    found.SOPInstanceUID, found.SeriesInstanceUID, found.StudyInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    found.Modality, found.PatientID = "US", "17"
    found.Rows, found.Columns = HEIGHT, WIDTH
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit, found.PixelRepresentation = 7, 0
    if count > 1:
        found.NumberOfFrames, found.FrameTime = count, 40
    for tag, value in tags.items():
        setattr(found, tag, value)
    found.PixelData = np.stack([frame(i) for i in range(count)]).tobytes()
    found["PixelData"].VR = "OB"
    found.save_as(path, enforce_file_format=True)
    return path


def test_a_dicom_cine_gives_a_segmentation_object(bundle: Path, tmp_path: Path) -> None:
    source = write_dicom(tmp_path / "in.dcm", 3)
    codes = tmp_path / "codes.toml"
    codes.write_text('[head]\ntype = ["123", "99HOME", "My head"]\n')
    done = edgeseg(bundle, source, "-o", tmp_path / "out.dcm", "--codes", codes)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / "out"
    assert edgeseg(bundle, source, "-o", folder, "--dicom-seg").returncode == 0
    masks = np.stack([read_image(p) for p in sorted((folder / "masks").iterdir())])
    for path in (tmp_path / "out.dcm", folder / "segmentation.dcm"):
        segments = segread(path).get_pixels_by_source_frame("1.2.3.1", [1, 2, 3])
        assert np.array_equal(segments[..., 0], masks)
    (segment,) = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "My head"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "head"
    # No pixel spacing: nothing in mm.
    found = rows(folder / "results.csv")
    assert [r["time_s"] for r in found] == ["0.0000", "0.0400", "0.0800"]
    assert {r[c] for r in found for c in ("area_mm2", "circumference_mm", "long_axis_mm")} == {""}
    # What the next run does not ask for does not stay.
    assert edgeseg(bundle, source, "-o", folder).returncode == 0
    assert not (folder / "segmentation.dcm").exists()


def test_a_segmentation_object_needs_a_source_to_refer_to(bundle: Path, images: Path, tmp_path: Path) -> None:
    for options in (["-o", tmp_path / "out.dcm"], ["-o", tmp_path / "out", "--dicom-seg"]):
        assert "expected a DICOM file as INPUT" in one_line(edgeseg(bundle, images, *options))
    nameless = write_dicom(tmp_path / "nameless.dcm", 1, StudyInstanceUID="")
    assert "has no StudyInstanceUID" in one_line(edgeseg(bundle, nameless, "-o", tmp_path / "out.dcm"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "nameless.dcm"]


def test_without_highdicom_the_command_is_named(bundle: Path, tmp_path: Path) -> None:
    source = write_dicom(tmp_path / "in.dcm", 1)
    code = (
        "import sys; sys.modules['highdicom'] = None\n"  # what Python has for a package that must not be found
        "from edgeseg.cli import main; main()"
    )
    words = ["run", str(bundle), str(source), "-o", str(tmp_path / "out.dcm"), "--runtime", "fake"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert "pip install 'edgeseg[dicom-seg]'" in one_line(done)
    assert not (tmp_path / "out.dcm").exists()


def test_confidence_and_contours(bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert edgeseg(bundle, images, "-o", out, "--confidence", "--contours").returncode == 0
    found = json.loads((out / "contours.json").read_text())
    assert (found["schema"], found["classes"]) == (1, ["head"])
    assert [(f["frame"], f["pixel_size_mm"]) for f in found["frames"]] == [("f0", 0.5), ("f1", 0.5), ("f2", None)]
    for line in found["frames"]:
        mask = read_image(out / "masks" / f"{line['frame']}.png")
        confidence = read_image(out / "confidence" / f"{line['frame']}_head.png")
        assert confidence.shape == mask.shape
        assert np.mean((confidence > 127) == mask) > 0.999
        outlines = [np.array(c, np.int32) for c in line["contours"]["head"]]
        assert np.array_equal(cv2.fillPoly(np.zeros_like(mask), outlines, 1), mask)
    assert edgeseg(bundle, images / "images" / "f0.png", "-o", out).returncode == 0
    assert not (out / "contours.json").exists()
    assert not list((out / "confidence").iterdir())


def test_axes_and_centroid(bundle: Path, images: Path, tmp_path: Path) -> None:
    assert edgeseg(bundle, images, "-o", tmp_path / "out").returncode == 0
    first, _, last = rows(tmp_path / "out" / "results.csv")
    assert float(first["long_axis_mm"]) == pytest.approx(40, rel=0.06)
    assert float(first["short_axis_mm"]) == pytest.approx(30, rel=0.06)
    assert float(first["centroid_x_px"]) == pytest.approx(60, abs=1)
    assert float(last["centroid_x_px"]) == pytest.approx(62, abs=1)
    assert float(last["centroid_y_px"]) == pytest.approx(48, abs=1)


def test_the_folder_of_an_older_run_is_known(bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert edgeseg(bundle, images, "-o", out).returncode == 0
    (out / "results.csv").write_text("frame,index,time_s,class,area_px,area_mm2,circumference_mm\nf2,2,,head,1,,\n")
    assert edgeseg(bundle, images / "images" / "f1.png", "-o", out).returncode == 0
    assert "f2.png" not in {p.name for p in (out / "masks").iterdir()}


def test_smoothing_calms_a_clip(bundle: Path, tmp_path: Path) -> None:
    clip = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 20, (WIDTH, HEIGHT))
    for index in range(8):
        writer.write(cv2.cvtColor(frame(12 * (index % 2)), cv2.COLOR_GRAY2BGR))
    writer.release()
    changes = []
    for options in ([], ["--smoothing", "0.8"]):
        out = tmp_path / f"out{len(options)}"
        assert edgeseg(bundle, clip, "-o", out, *options).returncode == 0
        masks = [read_image(p) for p in sorted((out / "masks").iterdir())]
        changes.append(np.mean([np.mean(a != b) for a, b in itertools.pairwise(masks)]))
    assert changes[0] > 0.05
    assert changes[1] < 0.2 * changes[0]


def test_smoothing_of_pictures_is_refused(bundle: Path, images: Path, tmp_path: Path) -> None:
    for source in (images, images / "images" / "f0.png"):
        done = edgeseg(bundle, source, "-o", tmp_path / "out", "--smoothing", "0.5")
        assert "--smoothing needs a clip or a cine" in one_line(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["out.mp4", "--contours"],
        ["out.mp4", "--confidence"],
        ["out.dcm", "--dicom-seg"],
        ["out", "--codes", "c.toml"],
        ["out", "--smoothing", "1"],
        ["out", "--smoothing", "nan"],
    ],
)
def test_options_that_contradict_each_other(bundle: Path, images: Path, tmp_path: Path, wrong: list[str]) -> None:
    name, *options = wrong
    one_line(edgeseg(bundle, images, "-o", tmp_path / name, *options), 2)
    assert not (tmp_path / name).exists()
