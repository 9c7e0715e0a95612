"""Bundles with a scan area, as a user meets them: converted, verified and run on screens around real heads."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result

import edgeseg
from edgeseg import BundleError, metrics, samples
from edgeseg.dataset import read_folder
from edgeseg.frames import open_frames, read_image
from edgeseg.preprocess import area_of, to_input
from edgeseg.scan_area import cut
from edgeseg.types import Box, Frame, Mask, Preprocess, ScanArea

Invoke = Callable[..., Result]
Screen = Callable[..., tuple[Frame, Box]]
OnScreen = Callable[[Mask, Box], Mask]
ONNX = ("--format", "onnx")
FIXED = "0.1953125,0.13541666666666667,0.625,0.5625"  # where `screen` has the frame: 250, 130, 800, 540 of 1280 x 960


@pytest.fixture(scope="session")
def screens(tmp_path_factory: pytest.TempPathFactory, screen: Screen, on_screen: OnScreen) -> Path:
    """A frames folder: the embedded heads with their masks and pixel sizes, each on a screen of its own."""
    folder = tmp_path_factory.mktemp("screens")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    with (samples.FRAMES / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for sample, row in zip(read_folder(samples.FRAMES).samples, rows, strict=True):
        picture, box = screen(sample.read_frame())
        cv2.imwrite(str(folder / "images" / row["file"]), picture[..., ::-1])
        cv2.imwrite(str(folder / "masks" / row["file"]), 255 * on_screen(sample.read_mask(), box))
    (folder / "index.csv").write_text((samples.FRAMES / "index.csv").read_text().replace(",test,", ",val,"))
    return folder


@pytest.fixture(scope="session")
def detecting(tmp_path_factory: pytest.TempPathFactory, screens: Path) -> Path:
    """The embedded student as a bundle that looks for the scan area, made of the screens."""
    from click.testing import CliRunner

    from edgeseg.cli import main

    target = tmp_path_factory.mktemp("bundles") / "screen.edgeseg"
    words = ["convert", "--no-isolate", samples.STUDENT, "--calibration", screens, "--scan-area", "detect", *ONNX]
    result = CliRunner().invoke(main, [str(w) for w in (*words, "-o", target)])
    assert result.exit_code == 0, result.output
    assert "scan area: found in the picture" in result.output
    return target


def dice_on(bundle: Path, folder: Path, precision: str) -> list[float]:
    found = []
    with edgeseg.load(edgeseg.open_bundle(bundle), runtime="onnxruntime", precision=precision) as segmenter:
        for sample in read_folder(folder).samples:
            result = segmenter(sample.read_frame())
            assert result.mask.shape == (960, 1280)
            found.append(metrics.dice(result.mask, sample.read_mask()))
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_mask_lies_on_the_head(detecting: Path, screens: Path, precision: str) -> None:
    assert edgeseg.open_bundle(detecting).preprocess.scan_area == ScanArea(detect=True)
    scores = dice_on(detecting, screens, precision)
    assert np.mean(scores) > 0.95
    assert min(scores) > 0.85


def test_evidence_and_golden_masks_are_of_the_whole_frame(detecting: Path) -> None:
    manifest = edgeseg.open_bundle(detecting).manifest
    assert {a.name for a in manifest.artifacts} == {"onnx-fp32", "onnx-int8"}
    for artifact in manifest.artifacts:
        assert artifact.parity is not None
        assert artifact.parity.dice is not None
        assert artifact.parity.dice > 0.95
    for golden in manifest.golden:
        frame, mask = read_image(golden.frame.path), read_image(golden.mask.path)
        assert mask.shape == frame.shape[:2] == (960, 1280)
        assert mask.any()
        assert not mask[:100].any(), "the field begins below the title bar"
        assert golden.input is not None
        area = area_of(frame, Preprocess(256, 256, scan_area=ScanArea(detect=True)))
        assert area is not None
        seen = to_input(np.ascontiguousarray(cut(frame, area)), Preprocess(256, 256))
        np.testing.assert_array_equal(read_image(golden.input.path), seen[0, 0])


def test_without_the_area_the_same_network_does_worse(
    invoke: Invoke, detecting: Path, screens: Path, tmp_path: Path
) -> None:
    target = tmp_path / "plain.edgeseg"
    result = invoke("convert", samples.STUDENT, "--calibration", screens, *ONNX, "--precision", "fp32", "-o", target)
    assert target.is_dir(), result.output
    assert np.mean(dice_on(target, screens, "fp32")) < np.mean(dice_on(detecting, screens, "fp32")) - 0.05


def test_verify_with_its_source_and_inspect(invoke: Invoke, detecting: Path, screens: Path, tmp_path: Path) -> None:
    report = tmp_path / "verify.json"
    words = ("--data", screens, "--source", samples.STUDENT, "--json", report)
    result = invoke("verify", detecting, *words)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(report.read_text())["rows"]
    assert {row["runtime"] for row in rows} >= {"torch", "onnxruntime"}
    assert all(row["passed"] is not False for row in rows)
    assert min(row["dice"] for row in rows) > 0.9
    shown = invoke("inspect", detecting)
    assert "scan_area (detect True" in shown.stdout


def test_a_fixed_area_from_a_recipe_is_what_the_device_cuts(invoke: Invoke, screens: Path, tmp_path: Path) -> None:
    recipe, target = tmp_path / "recipe.toml", tmp_path / "fixed.edgeseg"
    recipe.write_text(f"[preprocess]\nscan_area = [{FIXED}]\n\n[quantize]\ncalibration_frames = 8\n")
    words = ("--recipe", recipe, *ONNX, "--precision", "fp32", "-o", target)
    result = invoke("convert", samples.STUDENT, "--calibration", screens, *words)
    assert result.exit_code == 0, result.output
    with edgeseg.load(edgeseg.open_bundle(target), runtime="onnxruntime") as segmenter:
        result = segmenter(read_image(sorted((screens / "images").iterdir())[0]))
    assert result.area == Box(250, 130, 800, 540)
    rows, columns = np.nonzero(result.mask)
    assert rows.min() >= 130
    assert rows.max() < 670
    assert columns.min() >= 250
    assert columns.max() < 1050


def test_the_option_goes_before_the_recipe(invoke: Invoke, screens: Path, tmp_path: Path) -> None:
    recipe, target = tmp_path / "recipe.toml", tmp_path / "both.edgeseg"
    recipe.write_text('[preprocess]\nscan_area = "detect"\n')
    words = ("--recipe", recipe, "--scan-area", FIXED, *ONNX, "--precision", "fp32", "-o", target)
    assert invoke("convert", samples.STUDENT, "--calibration", screens, *words).exit_code == 0
    area = edgeseg.open_bundle(target).preprocess.scan_area
    assert area == ScanArea(False, 0.1953125, 0.13541666666666667, 0.625, 0.5625)


@pytest.mark.parametrize("text", ["0.1,0.1", "somewhere", "0,0,2,1", "0,0,0,1", "nan,0,1,1"])
def test_an_area_that_is_none_ends_in_one_line(invoke: Invoke, screens: Path, tmp_path: Path, text: str) -> None:
    words = ("--calibration", screens, "--scan-area", text, "-o", tmp_path / "no.edgeseg")
    result = invoke("convert", samples.STUDENT, *words)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "scan area" in result.stderr


@pytest.mark.parametrize("area", ["[0, 0, 1]", "[0.5, 0, 0.6, 1]", '"left"', "[0, 0, 0, 1]", "true"])
def test_a_recipe_with_such_an_area_too(invoke: Invoke, screens: Path, tmp_path: Path, area: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"[preprocess]\nscan_area = {area}\n")
    words = ("--calibration", screens, "--recipe", recipe, "-o", tmp_path / "no.edgeseg")
    result = invoke("convert", samples.STUDENT, *words)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert str(recipe) in result.stderr


def test_run_holds_the_area_of_a_clip_and_looks_anew_in_every_picture(
    invoke: Invoke, detecting: Path, heads: list[tuple[Frame, Mask]], screen: Screen, tmp_path: Path
) -> None:
    first, moved = (screen(heads[0][0], **place)[0] for place in ({}, {"left": 60, "top": 300}))
    clip, folder = tmp_path / "clip.avi", tmp_path / "pictures"
    folder.mkdir()
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (1280, 960))
    for index in range(12):
        picture = first if index < 10 else moved
        writer.write(picture[..., ::-1])
        cv2.imwrite(str(folder / f"{index:02}.png"), picture[..., ::-1])
    writer.release()
    held, anew = (ends(invoke, detecting, source, tmp_path / f"of {source.stem}") for source in (clip, folder))
    with (
        open_frames(clip) as source,
        edgeseg.load(detecting, runtime="onnxruntime", precision="fp32") as segmenter,
    ):
        area = segmenter(next(source).frame).area  # as compressed
        assert area is not None
        np.testing.assert_array_equal(anew[1], segmenter(moved).mask)
    assert metrics.dice(held[0], anew[0]) > 0.95
    assert not held[1][cut_away(area)].any()
    assert anew[1][cut_away(area)].any()


def ends(invoke: Invoke, bundle: Path, source: Path, output: Path) -> tuple[Mask, Mask]:
    """The first and last mask of `edgeseg run`."""
    words = ("--runtime", "onnxruntime", "--precision", "fp32")
    result = invoke("run", bundle, source, "-o", output, *words)
    assert result.exit_code == 0, result.output
    found = sorted((output / "masks").iterdir())
    return read_image(found[0]), read_image(found[-1])


def cut_away(area: Box) -> Mask:
    outside = np.ones((960, 1280), np.bool_)
    cut(outside, area)[...] = False
    return outside


def test_a_manifest_with_such_an_area_is_refused(detecting: Path) -> None:
    from edgeseg.manifest import convert_manifest, parse_manifest

    content = parse_manifest((detecting / "manifest.json").read_bytes())
    content["preprocess"]["scan_area"] = {"detect": False, "left": 0.5, "top": 0.0, "width": 0.6, "height": 1.0}
    with pytest.raises(BundleError, match="scan area has left \\+ width"):
        convert_manifest(content)


def test_training_sees_what_the_device_sees(invoke: Invoke, screens: Path, tmp_path: Path) -> None:
    from edgeseg.converters.checkpoint import read_info
    from edgeseg.converters.training_data import TrainingData, ValidationData

    preprocess = Preprocess(64, 96, scan_area=ScanArea(detect=True))
    folder = read_folder(screens)
    data, held = TrainingData(folder, preprocess, 2, 4), ValidationData(folder, preprocess, 2)
    for index, sample in enumerate(folder.samples[:3]):
        frame, mask = sample.read_frame(), sample.read_mask()
        area = area_of(frame, preprocess)
        assert area is not None
        np.testing.assert_array_equal(data.images[index], to_input(frame, preprocess)[0] / 255)
        inside = mask[area.top : area.top + area.height, area.left : area.left + area.width]
        assert data.targets[index].mean() == pytest.approx(inside.mean(), abs=1e-3)
        assert held.items[index][2] == area
    checkpoint = tmp_path / "screen.safetensors"
    words = (
        "--epochs",
        1,
        "--size",
        "32x32",
        "--batch-size",
        2,
        "--width",
        0.35,
        "--scan-area",
        "detect",
        "--threads",
        1,
    )
    result = invoke("train", screens, "-o", checkpoint, *words)
    assert result.exit_code == 0, result.output
    assert read_info(checkpoint).preprocess.scan_area == ScanArea(detect=True)
