"""`edgeseg frontier`: what it measures, judges and draws, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeseg import metrics
from edgeseg.bundle import file_record
from edgeseg.cli import main
from edgeseg.frontier.style import COLOURS
from edgeseg.manifest import MANIFEST, seal

Invoke = Callable[..., Result]
SHORT = ("--rounds", "3", "--repeats", "2", "--threads", "1")
FILES = {"frontier.json", "frontier.csv", "frontier.png", "frontier.html"}
FIGURES = ("dice", "hc_mae_mm", "worst_dice", "p50_ms", "p90_ms", "total_p50_ms", "size_mb")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, user: Path, frames: Path) -> Path:
    """A bundle of the same network at another input size, ONNX only."""
    target = tmp_path_factory.mktemp("larger") / "larger.edgeseg"
    source = ("usermodels:tiny", "--weights", user / "tiny.safetensors", "--size", "96x128")
    args = ("convert", *source, "--calibration", frames, "--format", "onnx", "-o", target)
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert target.is_dir(), result.output
    return target


@pytest.fixture(scope="module")
def drawn(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, larger: Path, frames: Path, tiny_args: tuple[object, ...]
) -> tuple[Path, Result]:
    """Two bundles of different input size and their source, measured in one run."""
    folder = tmp_path_factory.mktemp("frontier") / "out"
    args = ("frontier", bundle, larger, "--source", *tiny_args, "--data", frames, *SHORT, "-o", folder)
    return folder, CliRunner().invoke(main, [str(a) for a in args])


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "frontier.json").read_text())
    return document


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document["rows"]}


def test_bundles_of_different_input_size_and_their_source_are_measured_together(drawn: tuple[Path, Result]) -> None:
    folder, result = drawn
    assert result.exit_code == 0, result.output
    assert {p.name for p in folder.iterdir()} == FILES
    document = read(folder)
    assert document["schema"] == 1
    found = rows(document)
    artifacts = {f"tiny/{f}-{p}" for f in ("onnx", "openvino", "tflite") for p in ("fp32", "int8")}
    assert set(found) == artifacts | {
        *("larger/onnx-fp32", "larger/onnx-int8", "tiny/torch", "tiny/torch-channels-last")
    }
    assert {tuple(r["input"]) for r in found.values()} == {(64, 96), (96, 128)}
    assert all(row[name] > 0 for row in found.values() for name in FIGURES)
    assert all(row["dice"] > 0.85 for row in found.values())
    # The network of the source is recognised in its bundle and not in the other.
    assert found["tiny/onnx-int8"]["source"] == "tiny"
    assert found["larger/onnx-int8"]["source"] is None
    assert found["larger/onnx-fp32"]["macs"] == 2 * found["tiny/torch"]["macs"] > 1e6


def test_every_figure_follows_from_the_samples(drawn: tuple[Path, Result]) -> None:
    document = read(drawn[0])
    found = rows(document)
    files, exams = ([f[key] for f in document["data"]["frames"]] for key in ("file", "exam"))
    assert len(files) == 8
    assert document["reference"] == "tiny/torch"
    base = found["tiny/torch"]["samples"]
    for row in found.values():
        samples = row["samples"]
        dice, errors = samples["dice"], samples["hc_error_mm"]
        assert row["dice"] == pytest.approx(np.mean(dice))
        assert row["dice_ci"] == pytest.approx(metrics.bootstrap_interval(dice, exams))
        assert row["dice_difference"] == pytest.approx(np.mean(dice) - np.mean(base["dice"]), abs=1e-12)
        assert row["dice_difference_ci"] == pytest.approx(metrics.paired_interval(dice, base["dice"], exams))
        assert row["hc_mae_mm"] == pytest.approx(np.mean(errors))
        assert row["hc_mae_ci"] == pytest.approx(metrics.bootstrap_interval(errors, exams))
        assert row["hc_difference_mm"] == pytest.approx(np.mean(errors) - np.mean(base["hc_error_mm"]), abs=1e-12)
        assert (row["worst_dice"], row["worst_file"]) == (min(dice), files[int(np.argmin(dice))])
        assert len(samples["run_ms"]) == 6
        assert len(samples["total_ms"]) == 3
        assert row["p50_ms"] == pytest.approx(np.median(samples["run_ms"]))
        assert row["p90_ms"] == pytest.approx(np.percentile(samples["run_ms"], 90))
        assert row["total_p50_ms"] == pytest.approx(np.median(samples["total_ms"]))
        for kind, name in {
            "torch": "tiny/torch",
            "torch_channels_last": "tiny/torch-channels-last",
            "openvino_fp32": "tiny/openvino-fp32",
        }.items():
            assert document["baselines"][kind] == name
            assert row["speedup"][kind] == pytest.approx(found[name]["p50_ms"] / row["p50_ms"])


def test_dominance_best_and_verdicts_follow_from_the_figures(drawn: tuple[Path, Result]) -> None:
    document = read(drawn[0])
    found = list(rows(document).values())

    def scores(row: dict[str, Any], cost: str) -> np.ndarray:
        return np.array(
            [
                float(f"{row[cost]:.3g}"),
                round(-row["dice"], 4),
                round(row["hc_mae_mm"], 2),
                round(-row["worst_dice"], 4),
            ]
        )

    for row in found:
        for cost, flag in (("p50_ms", "dominated"), ("size_mb", "dominated_in_size")):
            own, others = scores(row, cost), [scores(r, cost) for r in found]
            assert row[flag] is any((o <= own).all() and (o < own).any() for o in others)
        kept = row["dice_difference"] >= -0.005 and row["hc_difference_mm"] <= 0.3 and row["worst_dice"] >= 0.85
        assert row["passed"] is kept
        assert (row["reason"] is None) is kept
    allowed = [r for r in found if r["passed"] and r["format"] != "torch"]
    assert document["best"] == min(allowed, key=lambda r: r["p50_ms"])["name"]


def test_the_terminal_has_the_table_and_the_best_point(drawn: tuple[Path, Result]) -> None:
    text = drawn[1].stdout
    document = read(drawn[0])
    assert f"best within the limits: {document['best']}: " in text
    assert "times as fast as torch eager" in text
    assert (
        "limits against tiny/torch: Dice -0.5 points, head circumference error +0.3 mm, no frame under Dice 85" in text
    )
    header = next(line for line in text.splitlines() if line.startswith("point"))
    for heading in ("MB", "MMACs", "p50 ms", "x torch", "x OV fp32", "Dice difference", "worst frame", "dominated by"):
        assert heading in header
    names = [line.split()[0] for line in text.splitlines() if line.startswith(("tiny/", "larger/"))]
    assert names == sorted(names, key=lambda name: rows(document)[name]["p50_ms"])


def test_the_csv_has_a_line_for_each_point(drawn: tuple[Path, Result]) -> None:
    lines = list(csv.DictReader((drawn[0] / "frontier.csv").open()))
    found = rows(read(drawn[0]))
    assert [line["name"] for line in lines] == list(found)
    for line in lines:
        row = found[line["name"]]
        assert float(line["dice_difference_ci_low"]) == row["dice_difference_ci"][0]
        assert float(line["speedup_torch"]) == row["speedup"]["torch"]
        assert "samples" not in line


def pixels_of(path: Path, name: str) -> int:
    image = cv2.imread(str(path))
    blue, green, red = (int(COLOURS[name][i : i + 2], 16) for i in (5, 3, 1))
    return int((image == (blue, green, red)).all(2).sum())


def test_the_picture_has_points_lines_and_words(drawn: tuple[Path, Result]) -> None:
    path = drawn[0] / "frontier.png"
    height, width = cv2.imread(str(path)).shape[:2]
    assert (width, height) == (2250, 1500)
    assert pixels_of(path, "good") > 2000
    assert pixels_of(path, "gray") > 300
    assert pixels_of(path, "bad") > 1000  # the limits
    assert pixels_of(path, "ink") > 5000


def test_the_page_is_whole_and_needs_nothing_else(drawn: tuple[Path, Result]) -> None:
    page = (drawn[0] / "frontier.html").read_text()
    document = read(drawn[0])
    assert page.count("<svg ") == 1
    assert 'role="img" aria-label="' in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\((?!#)""", page)
    assert "prefers-color-scheme: dark" in page
    body = page[page.index("<body>") :]
    assert not [colour for colour in COLOURS.values() if colour in body]
    for name in rows(document):
        assert f"<title>{name}: " in page
        assert f'<th scope="row">{name}</th>' in page
    for told in (document["machine"], document["created"], document["versions"]["onnxruntime"]):
        assert told in page
    assert document["command"].startswith("edgeseg frontier ")
    assert "--source usermodels:tiny" in page


def test_drawing_again_measures_nothing_and_gives_the_same(
    drawn: tuple[Path, Result], invoke: Invoke, tmp_path: Path
) -> None:
    result = invoke("frontier", "--from", drawn[0] / "frontier.json", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout == drawn[1].stdout
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (drawn[0] / name).read_bytes()


def test_drawing_again_with_other_limits_judges_again(
    drawn: tuple[Path, Result], invoke: Invoke, tmp_path: Path
) -> None:
    limits = ("--worst-dice", "0.999", "--hc-increase", "0")
    result = invoke("frontier", "--from", drawn[0] / "frontier.json", *limits, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert "no artifact keeps the limits" in result.stdout
    document = read(tmp_path)
    assert document["limits"] == {"dice_drop": 0.005, "hc_increase_mm": 0.0, "worst_dice": 0.999}
    assert document["best"] is None
    assert {r["passed"] for r in document["rows"]} == {False}
    assert pixels_of(tmp_path / "frontier.png", "bad") > pixels_of(drawn[0] / "frontier.png", "bad")


def test_a_point_that_is_slower_and_worse_is_marked(drawn: tuple[Path, Result], invoke: Invoke, tmp_path: Path) -> None:
    document = read(drawn[0])
    found = rows(document)
    slow, fast = found["larger/onnx-int8"], found["tiny/onnx-int8"]
    slow["samples"] = {
        **fast["samples"],
        "dice": [d - 0.01 for d in fast["samples"]["dice"]],
        "run_ms": [1000.0 * t for t in fast["samples"]["run_ms"]],
    }
    (tmp_path / "edited.json").write_text(json.dumps(document))
    result = invoke("frontier", "--from", tmp_path / "edited.json", "--reference", "tiny/onnx-fp32", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    judged = read(tmp_path)
    assert judged["reference"] == "tiny/onnx-fp32"
    assert rows(judged)["larger/onnx-int8"]["dominated"] is True
    line = next(line for line in result.stdout.splitlines() if line.startswith("larger/onnx-int8"))
    assert rows(judged)["larger/onnx-int8"]["dominated_by"] in line


def test_what_the_frames_do_not_tell_is_null_and_said(
    invoke: Invoke, larger: Path, frames: Path, tmp_path: Path
) -> None:
    (tmp_path / "bare" / "images").mkdir(parents=True)
    for name in ("000.png", "001.png", "002.png"):
        shutil.copy(frames / "images" / name, tmp_path / "bare" / "images")
    result = invoke("frontier", larger, "--data", tmp_path / "bare", *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "bare has no masks: Dice and worst frame were not measured" in result.stdout
    assert "head circumference was not measured" in result.stdout
    assert "no intervals" in result.stdout
    assert "no ratio to torch eager" in result.stdout
    document = read(tmp_path / "out")
    assert document["reference"] == "larger/onnx-fp32"
    assert document["best"] is None
    for row in document["rows"]:
        assert row["p50_ms"] > 0
        for name in ("dice", "dice_ci", "hc_mae_mm", "worst_dice", "worst_file", "dominated", "passed"):
            assert row[name] is None
    assert pixels_of(tmp_path / "out" / "frontier.png", "faint") > 1000
    assert pixels_of(tmp_path / "out" / "frontier.png", "bad") < 500  # the legend's only


def test_masks_without_exams_have_figures_but_no_intervals(
    invoke: Invoke, larger: Path, frames: Path, tmp_path: Path
) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "bare" / kind).mkdir(parents=True)
        for name in ("000.png", "001.png", "002.png"):
            shutil.copy(frames / kind / name, tmp_path / "bare" / kind)
    result = invoke("frontier", larger, "--data", tmp_path / "bare", *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for row in read(tmp_path / "out")["rows"]:
        assert row["dice"] > 0.8
        assert row["dice_ci"] is row["dice_difference_ci"] is row["hc_mae_mm"] is None
        assert row["dominated"] is not None
        assert row["passed"] is not None


def spoil(bundle: Path) -> None:
    """Damage the ONNX artifacts of a bundle, hashes to match."""
    content = json.loads((bundle / MANIFEST).read_text())
    for artifact in content["artifacts"]:
        for record in artifact["files"]:
            path = bundle / record["path"]
            if path.suffix == ".onnx":
                path.write_bytes(b"\0" * 100)
                fresh = file_record(path, bundle)
                record["sha256"], record["size_bytes"] = fresh.sha256, fresh.size_bytes
    (bundle / MANIFEST).write_bytes(seal(content))


def test_a_bundle_that_cannot_run_is_a_row_with_the_reason(
    invoke: Invoke, larger: Path, bundle_copy: Path, frames: Path, tmp_path: Path
) -> None:
    spoil(bundle_copy)
    options = ("--runtime", "onnxruntime", "--data", frames, *SHORT)
    result = invoke("frontier", larger, bundle_copy, *options, "-o", tmp_path / "out")
    assert result.exit_code == 1, result.output
    found = rows(read(tmp_path / "out"))
    assert set(found) == {f"{m}/onnx-{p}" for m in ("larger", "copy") for p in ("fp32", "int8")}
    assert found["copy/onnx-fp32"]["state"] == "failed"
    assert "onnx-fp32" in found["copy/onnx-fp32"]["reason"]
    assert found["copy/onnx-fp32"]["samples"] is found["copy/onnx-fp32"]["p50_ms"] is None
    assert found["larger/onnx-fp32"]["state"] == "measured"
    assert "FAILED: " in result.stdout
    alone = invoke("frontier", bundle_copy, *options, "-o", tmp_path / "alone")
    assert alone.exit_code == 1
    assert alone.stderr.startswith("error: nothing can run here: copy: ")
    assert not list((tmp_path / "alone").iterdir())


def test_a_bundle_without_a_fitting_artifact_is_a_row_too(
    invoke: Invoke, larger: Path, bundle: Path, frames: Path, tmp_path: Path
) -> None:
    result = invoke("frontier", bundle, larger, "--runtime", "litert", "--data", frames, *SHORT, "-o", tmp_path)
    assert result.exit_code == 1, result.output
    found = rows(read(tmp_path))
    assert found["larger"]["reason"] == "no artifact fits litert"
    assert found["larger"]["format"] is None
    assert found["tiny/tflite-int8"]["passed"] is not None


def test_bundles_of_the_same_name_are_told_apart_by_their_folders(
    invoke: Invoke, larger: Path, frames: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        shutil.copytree(larger, tmp_path / folder / "head.edgeseg")
    paths = [tmp_path / folder / "head.edgeseg" for folder in ("a", "b")]
    result = invoke("frontier", *paths, "--data", frames, *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {r["model"] for r in read(tmp_path / "out")["rows"]} == {"a/head", "b/head"}


def test_other_classes_are_refused(
    invoke: Invoke, larger: Path, bundle_copy: Path, frames: Path, tmp_path: Path
) -> None:
    content = json.loads((bundle_copy / MANIFEST).read_text())
    content["classes"] = ["background", "heart"]
    (bundle_copy / MANIFEST).write_bytes(seal(content))
    result = invoke("frontier", larger, bundle_copy, "--data", frames, *SHORT, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "copy has the classes background, heart, larger " in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("BUNDLE", "--data", "nowhere"), 1, "nowhere has no frames"),
        (("nowhere", "--data", "FRAMES"), 1, "nowhere is not a bundle"),
        (("BUNDLE", "BUNDLE", "--data", "FRAMES"), 1, "is given twice"),
        (("BUNDLE", "--data", "FRAMES", "--split", "moon"), 1, "has no split 'moon'"),
        (
            ("BUNDLE", "--data", "FRAMES", "--reference", "moon"),
            1,
            "'moon' is none of the points that run here: larger/",
        ),
        (("BUNDLE", "--data", "FRAMES", "--runtime", "tensorflow"), 2, "'tensorflow' is not one of"),
        (("BUNDLE", "--data", "FRAMES", "--dice-drop", "0.5"), 2, "Invalid value for '--dice-drop'"),
        (("BUNDLE",), 2, "missing --data"),
        ((), 2, "nothing to measure"),
        (("--from", "nowhere.json"), 2, "does not exist"),
        (("BUNDLE", "--from", "DOCUMENT"), 2, "--from draws what was measured before"),
        (("--from", "DOCUMENT", "--reference", "moon"), 1, "there is no point 'moon'"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    args: tuple[str, ...],
    code: int,
    message: str,
    invoke: Invoke,
    larger: Path,
    frames: Path,
    drawn: tuple[Path, Result],
    tmp_path: Path,
) -> None:
    named = {"BUNDLE": larger, "FRAMES": frames, "DOCUMENT": drawn[0] / "frontier.json"}
    result = invoke("frontier", *(named.get(a, a) for a in args), "-o", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_output_that_is_a_file_is_refused(invoke: Invoke, drawn: tuple[Path, Result], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    result = invoke("frontier", "--from", drawn[0] / "frontier.json", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(schema=9), "has schema 9, this edgeseg reads up to 1"),
        (lambda d: d.pop("data"), "is not a frontier.json"),
        (lambda d: d["rows"][0]["samples"]["dice"].pop(), "samples that do not fit its frames"),
        (lambda d: d["rows"][0]["samples"].update(run_ms=[]), "no latency samples"),
    ],
)
def test_a_damaged_document_is_refused(
    spoil: Callable[[dict[str, Any]], object],
    message: str,
    invoke: Invoke,
    drawn: tuple[Path, Result],
    tmp_path: Path,
) -> None:
    document = read(drawn[0])
    spoil(document)
    (tmp_path / "frontier.json").write_text(json.dumps(document))
    result = invoke("frontier", "--from", tmp_path / "frontier.json", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
