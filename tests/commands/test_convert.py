"""`edgeseg convert`, as a user meets it: what ends up in the bundle, what is refused, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import edgeseg
from edgeseg import plugins
from edgeseg.parity import nchw_runner

Invoke = Callable[..., Result]
MakeFrames = Callable[..., Path]
ALL = {(f, p) for f in ("onnx", "openvino", "tflite") for p in ("fp32", "int8")}
FAST = ("--format", "onnx", "--precision", "fp32")


@pytest.fixture
def source(user: Path) -> Any:
    from edgeseg.converters.source import SourceOptions, load_source

    return load_source("usermodels:tiny", SourceOptions(weights=user / "tiny.safetensors", size=(64, 96)))


def manifest(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return content


def recipe(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


def one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_six_artifacts_by_default_one_line_a_step_and_nothing_else(conversion: tuple[Path, Result]) -> None:
    path, result = conversion
    assert result.exit_code == 0
    assert {(a.format, a.precision) for a in edgeseg.open_bundle(path).artifacts} == ALL
    steps = [line for line in result.stdout.splitlines() if re.match(r"\[\d/6\] ", line)]
    assert len(steps) == 6
    assert all(line.endswith("  passed") for line in steps)
    assert len(result.output.splitlines()) == 10, result.output
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.edgeseg"]


def test_every_artifact_carries_its_evidence(bundle: Path) -> None:
    for artifact in edgeseg.open_bundle(bundle).artifacts:
        parity = artifact.parity
        assert parity is not None
        assert parity.frames == 8
        assert parity.runtime == plugins.ENGINE_OF[artifact.format]
        assert parity.dice is not None
        assert parity.dice > 0.9
        assert (parity.logit_error < 1e-3) is (artifact.precision == "fp32")
        assert parity.agreement >= (0.9999 if artifact.precision == "fp32" else 0.995)


def test_normalisation_is_inside_every_graph(bundle: Path, source: Any) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, 64, 96)).astype(np.float32)
    want = source.run(pixels)
    for artifact in edgeseg.open_bundle(bundle).artifacts:
        with plugins.runtime(plugins.ENGINE_OF[artifact.format]).load(artifact.path, device="cpu") as session:
            got = nchw_runner(session.run, session.inputs, session.outputs)(pixels)
        tolerance = 1e-3 if artifact.precision == "fp32" else 0.25
        assert np.abs(got - want).max() <= tolerance * np.ptp(want), artifact.name


def test_golden_frames_hold_the_sources_results(bundle: Path, source: Any) -> None:
    from edgeseg.frames import read_image
    from edgeseg.preprocess import to_input, to_mask

    opened = edgeseg.open_bundle(bundle)
    assert len(opened.manifest.golden) == 8
    for golden in opened.manifest.golden:
        frame = read_image(golden.frame.path)
        logits = source.run(to_input(frame, opened.preprocess))
        np.testing.assert_allclose(np.load(golden.logits.path), logits, atol=1e-5)
        np.testing.assert_array_equal(read_image(golden.mask.path), to_mask(logits, frame.shape))


def test_provenance_says_how_to_make_it_again(bundle: Path, frames: Path, user: Path) -> None:
    from edgeseg.converters.checkpoint import file_sha256
    from edgeseg.dataset import read_folder

    found = manifest(bundle)["provenance"]
    assert found["source"] == {
        "name": "tiny",
        "kind": "factory",
        "factory": "usermodels:tiny",
        "file": "tiny.safetensors",
        "sha256": file_sha256(user / "tiny.safetensors"),
    }
    train = read_folder(frames).select("train")
    assert found["calibration"] == {
        "folder": "ellipses", "split": "train", "frames": 24, "masks": True, "sha256": train.sha256()
    }
    assert found["evaluation"]["split"] == "val"
    assert len(found["steps"]) == 6
    assert found["steps"][0] == {
        "step": "OnnxFromTorch",
        "makes": ["onnx", "fp32"],
        "options": {"opset": 18},
        "inputs": [found["network"]["sha256"]],
        "outputs": [manifest(bundle)["artifacts"][0]["files"][0]["sha256"]],
        "measured_on": found["evaluation"]["sha256"],
    }
    assert {"edgeseg", "torch", "onnx", "onnxruntime", "openvino", "nncf", "litert-torch"} <= found["tools"].keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["created"])
    assert found["machine"]


def test_no_file_names_a_folder_of_this_machine(bundle: Path, user: Path, frames: Path) -> None:
    here = Path(__file__).resolve().parents[2]
    words = [str(p).encode() for p in (bundle.parent, user, frames.parent, here, Path(sys.prefix), Path.home())]
    for path in bundle.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [w for w in words if w in data and len(w) > 3], path.name
            assert b"/work." not in data, path.name
            assert b"site-packages" not in data, path.name


@pytest.mark.slow
def test_the_same_inputs_give_the_same_artifacts(
    bundle: Path, invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    again = tmp_path / "tiny.edgeseg"
    assert invoke("convert", *tiny_args, "--calibration", frames, "-o", again).exit_code == 0
    first, second = manifest(bundle), manifest(again)
    for one, other in zip(first["artifacts"], second["artifacts"], strict=True):
        assert one["files"] == other["files"]
        assert one["parity"] == other["parity"]
    for key in ("golden", "preprocess", "classes", "gates"):
        assert first[key] == second[key]


def test_a_subset_by_format_and_precision_makes_what_it_depends_on(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    chosen = ("--format", "openvino", "--precision", "fp16")
    result = invoke("convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "b", *chosen)
    assert result.exit_code == 0, result.output
    found = edgeseg.open_bundle(tmp_path / "b").artifacts
    assert [(a.format, a.precision) for a in found] == [("openvino", "fp16")]
    assert re.search(r"\[1/2\] onnx-fp32 .*  intermediate", result.stdout)
    assert sorted(p.name for p in (tmp_path / "b" / "artifacts").iterdir()) == ["model.fp16.bin", "model.fp16.xml"]


def test_an_artifact_that_nobody_makes_is_refused(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    result = invoke(
        "convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "b", "--format", "onnx", "--precision", "fp16"
    )
    assert "onnx in fp16 is not made" in one_line(result)


def test_a_gate_refuses_with_the_reason_printed_and_recorded(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    gates = recipe(tmp_path, "[gates]\nsqnr_db_min = 90\n[evaluate]\nframes = 4\ngolden_frames = 2\n")
    result = invoke(
        "convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "b", "--recipe", gates, "--format", "onnx"
    )
    assert "onnx-int8 is not in the bundle: SQNR dB" in one_line(result)
    assert re.search(r"\[2/2\] onnx-int8 .*REFUSED: SQNR dB \d+\.\d, gate >= 90", result.stdout)
    found = manifest(tmp_path / "b")
    assert [a["precision"] for a in found["artifacts"]] == ["fp32"]
    (refusal,) = found["refused"]
    assert refusal["reason"].startswith("SQNR dB")
    assert 20 < refusal["parity"]["sqnr_db"] < 90
    assert refusal["parity"]["frames"] == 4
    assert len(found["golden"]) == 2
    assert found["gates"]["sqnr_db_min"] == 90
    assert [p.name for p in (tmp_path / "b" / "artifacts").iterdir()] == ["model.fp32.onnx"]


def test_where_nothing_passes_no_bundle_is_written(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    gates = recipe(tmp_path, "[gates]\nsqnr_db_min = 500\n")
    result = invoke("convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "b", "--recipe", gates, *FAST)
    assert "no artifact passed, no bundle was written: SQNR dB" in one_line(result)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_bad_recipe_fails_before_anything_is_loaded(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    wrong = recipe(tmp_path, "[gates]\nagreement = 1\n")
    result = invoke("convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "b", "--recipe", wrong)
    assert "[gates] has the unknown option 'agreement'" in one_line(result)
    assert result.stdout == ""
    missing = invoke("convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "b", "--recipe", tmp_path / "no")
    assert missing.exit_code == 2


def no_images(folder: Path) -> None:
    shutil.rmtree(folder / "images")


def one_mask(folder: Path) -> None:
    for path in sorted((folder / "masks").iterdir())[1:]:
        path.unlink()


def orphan_mask(folder: Path) -> None:
    (folder / "images" / "002.png").unlink()


def other_size(folder: Path) -> None:
    import cv2

    cv2.imwrite(str(folder / "masks" / "006.png"), np.zeros((10, 10), np.uint8))


def not_an_image(folder: Path) -> None:
    (folder / "images" / "000.png").write_bytes(b"no picture")


def unknown_row(folder: Path) -> None:
    with (folder / "index.csv").open("a") as stream:
        stream.write("999.png,train,e,0.5,\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_images, "has no frames, expected PNG files in"),
        (one_mask, "has no mask of the same name (9 such frames)"),
        (orphan_mask, "002.png has no image of the same name (1 such masks)"),
        (other_size, "006.png has size (10, 10), its image (96, 128)"),
        (not_an_image, "000.png"),
        (unknown_row, "names 999.png, which is not in"),
    ],
)
def test_a_folder_of_frames_that_does_not_fit_together(
    spoil: Callable[[Path], None],
    message: str,
    invoke: Invoke,
    tiny_args: tuple[object, ...],
    make_frames: MakeFrames,
    tmp_path: Path,
) -> None:
    folder = make_frames(tmp_path / "data", 10)
    spoil(folder)
    result = invoke("convert", *tiny_args, "--calibration", folder, "-o", tmp_path / "b", *FAST)
    assert message in one_line(result)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_frames_without_masks_convert_and_dice_stays_unknown(
    invoke: Invoke, tiny_args: tuple[object, ...], make_frames: MakeFrames, tmp_path: Path
) -> None:
    folder = make_frames(tmp_path / "data", 6)
    shutil.rmtree(folder / "masks")
    (folder / "index.csv").unlink()
    result = invoke("convert", *tiny_args, "--calibration", folder, "-o", tmp_path / "b", *FAST)
    assert result.exit_code == 0, result.output
    assert "no masks: Dice is not gated" in result.stdout
    (artifact,) = manifest(tmp_path / "b")["artifacts"]
    assert artifact["parity"]["dice"] is None


def test_an_output_that_is_no_bundle_is_left_alone(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    for output in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex"):
        result = invoke("convert", *tiny_args, "--calibration", frames, "-o", output, *FAST)
        assert "exists and is not a bundle" in one_line(result)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_an_older_bundle_is_replaced(
    bundle_copy: Path, invoke: Invoke, tiny_args: tuple[object, ...], frames: Path
) -> None:
    result = invoke("convert", *tiny_args, "--calibration", frames, "-o", bundle_copy, *FAST)
    assert result.exit_code == 0, result.output
    assert len(edgeseg.open_bundle(bundle_copy).artifacts) == 1
    assert [p.name for p in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_an_output_that_cannot_be_written_is_one_line(
    invoke: Invoke, tiny_args: tuple[object, ...], frames: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("convert", *tiny_args, "--calibration", frames, "-o", tmp_path / "file" / "b", *FAST)
    assert "file" in one_line(result)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("probabilities", "probabilities; expected logits, drop the final sigmoid"),
        ("not_a_number", "NaN or infinity"),
        ("flat", "expected float logits"),
    ],
)
def test_a_model_that_is_no_segmenter_is_refused(
    factory: str, message: str, invoke: Invoke, user: Path, frames: Path, tmp_path: Path
) -> None:
    spec = (f"usermodels:{factory}", "--size", "64x96")
    result = invoke("convert", *spec, "--calibration", frames, "-o", tmp_path / "b", *FAST)
    assert message in one_line(result)
    assert not list(tmp_path.iterdir())


def test_an_operator_without_a_counterpart_is_named(invoke: Invoke, user: Path, frames: Path, tmp_path: Path) -> None:
    spec = ("usermodels:bessel", "--size", "64x96", "--precision", "fp32", "--format", "onnx", "--format", "tflite")
    result = invoke("convert", *spec, "--calibration", frames, "-o", tmp_path / "b")
    assert result.exit_code == 1
    assert re.search(r"onnx-fp32 .*REFUSED: ONNX cannot express the model: operator \S*bessel_j0", result.stdout)
    assert re.search(r"tflite-fp32 .*REFUSED: TFLite cannot express the model: operator \S*bessel_j0", result.stdout)
    assert "no artifact passed, no bundle was written: ONNX cannot express" in result.stderr


@pytest.mark.parametrize("factory", ["colour", "four_classes", "dictionary"])
def test_other_shapes_of_models_pass_in_every_format(
    factory: str, invoke: Invoke, user: Path, make_frames: MakeFrames, tmp_path: Path
) -> None:
    folder = make_frames(tmp_path / "data", 5)
    shutil.rmtree(folder / "masks")
    weights = ("--weights", user / "tiny.safetensors") if factory == "dictionary" else ()
    spec = (f"usermodels:{factory}", "--size", "64x96", "--precision", "fp32", *weights)
    result = invoke("convert", *spec, "--calibration", folder, "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    opened = edgeseg.open_bundle(tmp_path / "b")
    assert len(opened.artifacts) == 3
    assert len(opened.classes) == (4 if factory == "four_classes" else 2)


def start(*args: object, **options: Any) -> subprocess.Popen[str]:
    code = "from edgeseg.cli import main; main()"
    command = [sys.executable, "-c", code, "convert", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_no_bundle_and_the_next_convert_clears_up(
    invoke: Invoke, tiny_args: tuple[object, ...], user: Path, frames: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b.edgeseg"
    environment = os.environ | {"PYTHONPATH": str(user), "PYTHONUNBUFFERED": "1"}
    child = start(*tiny_args, "--calibration", frames, "-o", output, env=environment)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("[1/6]"):
            child.send_signal(signal.SIGKILL)
            break
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(".b.edgeseg.")
    for path in (output, part):
        with pytest.raises(edgeseg.BundleError):
            edgeseg.open_bundle(path)
    result = invoke("convert", *tiny_args, "--calibration", frames, "-o", output, *FAST)
    assert result.exit_code == 0, result.output
    assert [p.name for p in tmp_path.iterdir()] == ["b.edgeseg"]


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tiny_args: tuple[object, ...], user: Path, frames: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(user), "PYTHONUNBUFFERED": "1"}
    child = start(
        *tiny_args, "--calibration", frames, "-o", tmp_path / "b", "--format", "openvino", env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell started us with &
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("[1/3]"):
            child.send_signal(signal.SIGINT)
            break
    _, errors = child.communicate()
    assert child.returncode == 130
    assert errors.strip() == "error: interrupted"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_no_half_bundle(
    tiny_args: tuple[object, ...], user: Path, frames: Path, tmp_path: Path
) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    child = start(
        *tiny_args, "--calibration", frames, "-o", tmp_path / "b", *FAST,
        env=os.environ | {"PYTHONPATH": str(user), "PYTHONDONTWRITEBYTECODE": "1"}, preexec_fn=small_files_only,
    )  # fmt: skip
    _, errors = child.communicate()
    assert child.returncode == 1, errors
    assert re.fullmatch(r"error: .*\n", errors), errors
    assert "too large" in errors
    assert not list(tmp_path.iterdir())
