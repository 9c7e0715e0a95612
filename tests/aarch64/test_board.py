"""edgeseg on an ARM processor, emulated: the engines' suite, masks equal to x86, the command line."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from edgeseg import samples
from edgeseg.boards.aarch64.board import Aarch64Board

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]

TOOL = Path(__file__).parents[2] / "tools" / "aarch64_agreement.py"
IMAGES = sorted((Path(samples.__file__).parent / "frames" / "images").glob("*.png"))[:4]
ENGINES = "TestOnnxRuntime or TestLiteRt or TestOpenVino"
ISOLATED = "TestIsolated and (says_who or every_time)"

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def found(board: Aarch64Board, bundle: Path) -> dict[str, Any]:
    """What tools/aarch64_agreement.py finds for all six artifacts of a bundle."""
    spec = spec_from_file_location("aarch64_agreement", TOOL)
    assert spec
    assert spec.loader
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.compare(board.folder, bundle, IMAGES, all_sizes=False)


@pytest.fixture(scope="module")
def steps(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["step"]: row for row in found["preprocessing"]}


def test_conformance(call: Call) -> None:
    done = call(
        *("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtimes/test_conformance.py"),
        *("-k", f"{ENGINES} or ({ISOLATED})"),
    )
    assert done.returncode == 0, done.stdout[-2000:]
    passed = re.search(r"(\d+) passed, \d+ deselected", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 3 * 20 + 2


@pytest.mark.parametrize("artifact", ["tflite-fp32 on litert", "tflite-int8 on litert"])
def test_tflite_masks_are_those_of_x86_to_the_bit(found: dict[str, Any], artifact: str) -> None:
    row = _row(found, artifact)
    assert row["equal_masks"] == row["frames"] == len(IMAGES)
    assert row["masks_sha256"][0] == row["masks_sha256"][1]
    if "int8" in artifact:
        assert row["logits_max_difference"] == 0


@pytest.mark.parametrize(
    "artifact", ["onnx-fp32 on onnxruntime", "onnx-int8 on onnxruntime", "openvino-fp32 on openvino"]
)
def test_other_masks_agree(found: dict[str, Any], artifact: str) -> None:
    row = _row(found, artifact)
    assert row["frames"] == len(IMAGES)
    assert row["worst_agreement"] >= 0.9999
    assert 0.02 < row["foreground"] < 0.98


def test_preprocessing_gives_the_bytes_of_x86(steps: dict[str, dict[str, Any]]) -> None:
    exact = [name for name in steps if not name.startswith("cv2.resize")]
    assert len(exact) == 8
    for name in exact:
        assert steps[name]["cases"] >= 4
        assert steps[name]["values_that_differ"] == 0, steps[name]


def test_opencv_alone_would_not(steps: dict[str, dict[str, Any]]) -> None:
    row = steps["cv2.resize gray linear"]
    assert row["values_that_differ"] > 0.1 * row["values"], "then numpy need not resize on ARM any more"


def test_bundles_verify_and_run(call: Call, bundle: Path, tmp_path: Path) -> None:
    done = call("edgeseg", "verify", bundle, "--runtime", "litert", "--runtime", "onnxruntime")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed, 0 failed" in done.stdout
    done = call("edgeseg", "run", bundle, IMAGES[0], "-o", tmp_path / "out", "--runtime", "litert", "--isolate")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/masks" / IMAGES[0].name).is_file()


def test_a_quantized_openvino_model_is_refused_with_the_reason(call: Call, bundle: Path) -> None:
    done = call("edgeseg", "verify", bundle, "--runtime", "openvino")
    assert done.returncode == 1
    assert re.search(r"openvino-fp32 .* passed", done.stdout), done.stdout
    assert re.search(r"openvino-int8 .*FAILED: .*int8", done.stdout), done.stdout


def test_the_board_says_what_it_is(call: Call, tmp_path: Path) -> None:
    done = call("edgeseg", "boards", "detect", "--json", tmp_path / "board.json")
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "board.json").read_text())
    text = json.dumps(said)
    assert '"aarch64"' in text
    assert "Cortex-A76" in text
    assert "generic-cpu" in text
    done = call("edgeseg", "runtimes", "--json", tmp_path / "runtimes.json")
    assert done.returncode == 0, done.stderr
    for engine in ("litert", "onnxruntime", "openvino"):
        assert re.search(rf"^{engine} .* cpu +yes ", done.stdout, re.MULTILINE), done.stdout
    done = call("edgeseg", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert platform.machine() not in done.stdout


def _row(found: dict[str, Any], artifact: str) -> dict[str, Any]:
    return next(row for row in found["artifacts"] if row["artifact"] == artifact)


def test_its_facts_say_that_it_is_emulated(call: Call, board: Aarch64Board) -> None:
    done = call("edgeseg", "hil", "probe")
    assert done.returncode == 0, done.stderr
    assert board.record
    assert json.loads(done.stdout)["emulation"] == f"qemu-user, {board.record.core}"
