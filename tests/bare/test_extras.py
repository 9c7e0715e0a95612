"""A device: the wheel with one engine and nothing of the workstation's."""

from __future__ import annotations

import json
import shutil

import pytest

from edgeseg.manifest import seal
from edgeseg.plugins import EXTRAS

pytestmark = pytest.mark.slow

EMBEDDING = """
import sys
import cv2
import edgeseg

bundle = edgeseg.open_bundle(sys.argv[1])
assert {str(artifact.format) for artifact in bundle.artifacts} == {"onnx", "openvino", "tflite"}
frame = cv2.imread(sys.argv[2], cv2.IMREAD_GRAYSCALE)
with edgeseg.load(bundle, runtime="auto", device="auto", precision=None, threads=1) as segmenter:
    result = segmenter(frame)
    assert result.execution.layers > 0
cv2.imwrite(sys.argv[3], result.mask)
assert result.timing.total > 0
print(segmenter.runtime, segmenter.device, *(m for m in sys.modules if "." not in m))
"""


def test_nothing_of_the_workstation_is_installed(device):
    installed = device.environment.installed()
    own = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "ai-edge-litert"}[device.extra]
    workstation = {*EXTRAS["convert"], *EXTRAS["train"], "pydicom", "torchvision", "transformers", "jax", "tensorflow"}
    assert own in installed
    assert not installed & (workstation - {own})


def test_what_is_installed_fits_together(device):
    assert "No broken requirements found" in device.environment.pip("check")


def test_the_engine_is_proven_and_the_others_have_their_pip_command(device):
    device.environment.run("edgeseg", "runtimes", "--json", "runtimes.json")
    document = json.loads((device.environment.path / "runtimes.json").read_text())
    found = {entry["name"]: entry for entry in document["runtimes"]}
    [cpu] = [entry for entry in found[device.runtime]["devices"] if entry["name"] == "cpu"]
    assert (cpu["usable"], cpu["reason"], cpu["verified"], cpu["executed"]["precision"]) == (True, None, True, "fp32")
    for extra, runtime in device.lacks.items():
        assert (found[runtime]["installed"], found[runtime]["devices"]) == (False, [])
        assert found[runtime]["install"] == f"pip install 'edgeseg[{extra}]'"


@pytest.mark.parametrize("chosen", ["its own", "auto"])
def test_run(device, bundle, picture, assert_found, tmp_path, chosen):
    options = ("--runtime", device.runtime) if chosen == "its own" else ()
    device.environment.run("edgeseg", "run", bundle, picture, "-o", tmp_path / "out", *options)
    assert_found(tmp_path / "out" / "masks" / picture.name)
    assert (tmp_path / "out" / "overlays" / picture.name).is_file()
    assert (tmp_path / "out" / "results.csv").is_file()


def test_embedding(device, bundle, picture, assert_found, tmp_path):
    done = device.environment.run("python", "-c", EMBEDDING, bundle, picture, tmp_path / "mask.png")
    runtime, used, *modules = done.stdout.split()
    assert (runtime, used) == (device.runtime, "cpu")
    assert not {"torch", "onnx", "nncf", "monai", "click", "rich"} & set(modules)
    assert_found(tmp_path / "mask.png")


def test_an_engine_that_is_missing_is_named_with_its_pip_command(device, bundle, picture, tmp_path):
    for extra, runtime in device.lacks.items():
        done = device.environment.run(
            *("edgeseg", "run", bundle, picture, "-o", tmp_path / "out", "--runtime", runtime), expect=1
        )
        assert one_line(done.stderr).endswith(f": pip install 'edgeseg[{extra}]'")
    assert not (tmp_path / "out").exists()


def test_a_bundle_for_other_engines_only(device, bundle, picture, tmp_path):
    other = tmp_path / "other.edgeseg"
    shutil.copytree(bundle, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["artifacts"] = [a for a in manifest["artifacts"] if a["format"] != device.format]
    kept = {file["path"] for artifact in manifest["artifacts"] for file in artifact["files"]}
    for file in (other / "artifacts").iterdir():
        if file.relative_to(other).as_posix() not in kept:
            file.unlink()
    (other / "manifest.json").write_bytes(seal(manifest))
    done = device.environment.run("edgeseg", "run", other, picture, "-o", tmp_path / "out", expect=1)
    for extra in device.lacks:
        assert f"pip install 'edgeseg[{extra}]'" in one_line(done.stderr)


def test_bench_without_torch(device, bundle, tmp_path):
    device.environment.run(
        *("edgeseg", "bench", bundle, "--rounds", "2", "--repeats", "1", "--json", tmp_path / "bench.json")
    )
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    measured = [row for row in rows if row["p50_ms"] is not None]
    assert {row["runtime"] for row in measured} == {device.runtime}
    assert {row["precision"] for row in measured} == {"fp32", "int8"}
    assert all(row["peak_memory_mb"] > 0 for row in measured)
    assert all("pip install" in row["reason"] for row in rows if row not in measured)


def test_verify_without_torch(device, bundle, tmp_path):
    device.environment.run("edgeseg", "verify", bundle, "--json", tmp_path / "verify.json")
    rows = json.loads((tmp_path / "verify.json").read_text())["rows"]
    verdicts = [(row["runtime"], row["passed"]) for row in rows]
    assert sorted(verdicts) == sorted(
        [(device.runtime, True)] * 2 + [(runtime, None) for runtime in device.lacks.values()] * 2
    )


@pytest.mark.parametrize("command", ["bench", "verify"])
def test_a_source_needs_the_workstation(device, bundle, picture, tmp_path, command):
    (tmp_path / "images").mkdir()
    shutil.copy(picture, tmp_path / "images")
    done = device.environment.run(
        *("edgeseg", command, bundle, "--data", tmp_path, "--source", "model.safetensors"), expect=1
    )
    assert one_line(done.stderr).startswith("error: torch is not installed, ")
    assert one_line(done.stderr).endswith(": pip install 'edgeseg[convert]'")


def one_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line
