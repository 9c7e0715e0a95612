"""`edgeseg inspect`: what a bundle is, the time of each layer, and what it loses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgeseg.manifest import MANIFEST, seal

Invoke = Callable[..., Result]


def test_a_bundle_is_described_with_its_hashes(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("inspect", bundle, "--json", tmp_path / "i.json")
    assert result.exit_code == 0, result.output
    manifest = json.loads((bundle / MANIFEST).read_text())
    for artifact in manifest["artifacts"]:
        name = f"{artifact['format']}-{artifact['precision']} "
        row = next(line for line in result.stdout.splitlines() if line.startswith(name))
        assert all(file["sha256"][:12] in row for file in artifact["files"])
    for text in ("classes: background", "height 64, width 96", "agreement_min 0.995", "golden frames: 8",
                 "makes onnx fp32", "compression: none", "torch 2."):  # fmt: skip
        assert text in result.stdout
    content = json.loads((tmp_path / "i.json").read_text())
    assert (content["schema"], content["profile"], content["board"]) == (1, None, None)
    assert content["artifacts"] == manifest["artifacts"]
    assert content["provenance"] == manifest["provenance"]


def test_what_was_refused_and_how_it_was_compressed_is_shown(invoke: Invoke, bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / MANIFEST).read_text())
    manifest["refused"] = [{"format": "onnx", "precision": "fp16", "reason": "SQNR dB 3.0, gate >= 20"}]
    manifest["provenance"]["compression"] = {"prune": {"ratio": 0.5, "kept": [8, 16]}, "proof": {"engine": "openvino"}}
    (bundle_copy / MANIFEST).write_bytes(seal(manifest))
    result = invoke("inspect", bundle_copy)
    assert result.exit_code == 0, result.output
    assert "refused: onnx-fp16: SQNR dB 3.0, gate >= 20" in result.stdout
    assert "compression, proof: engine openvino\ncompression, prune: kept 8 16, ratio 0.5\n" in result.stdout


def test_a_changed_file_is_not_described(invoke: Invoke, bundle_copy: Path) -> None:
    with (bundle_copy / "artifacts" / "model.fp32.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"\0\0\0")
    result = invoke("inspect", bundle_copy)
    assert result.exit_code == 1
    assert "SHA-256" in result.stderr


def test_every_layer_is_profiled(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("inspect", bundle, "--profile", "--threads", "1", "--runs", "5", "--json", tmp_path / "p.json")
    assert result.exit_code == 0, result.output
    profile = json.loads((tmp_path / "p.json").read_text())["profile"]
    assert profile["peak"]["int8_gmacs"] > 0
    rows = {(r["runtime"], r["precision"]): r for r in profile["rows"]}
    assert len(rows) == 6
    for precision in ("fp32", "int8"):
        check_row(rows["openvino", precision])
        check_row(rows["onnxruntime", precision])
        litert = rows["litert", precision]
        assert "no times per layer" in litert["reason"]
        assert litert["layers"] == []
        assert litert["time_us"] is litert["macs"] is litert["share_of_peak"] is None
        assert litert["run_us"] > 0
    # The same network, so the same work, whatever an engine makes of it.
    assert len({row["macs"] for key, row in rows.items() if key[0] != "litert"}) == 1
    assert "peak of this core: " in result.stdout
    assert "openvino-int8 on openvino (cpu): " in result.stdout
    header = next(line for line in result.stdout.splitlines() if line.startswith("layer "))
    assert header.split("  ")[0] == "layer"
    assert "by kind: " in result.stdout


def check_row(row: dict[str, Any]) -> None:
    layers = row["layers"]
    assert row["reason"] is None
    assert row["threads"] == 1
    assert row["time_us"] == pytest.approx(sum(layer["time_us"] for layer in layers))
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    convolutions = [layer for layer in layers if "Conv" in layer["kind"]]
    assert len(convolutions) == 5
    assert row["macs"] == sum(layer["macs"] for layer in convolutions)
    assert 0 < row["share_of_peak"] < 1
    for layer in convolutions:
        assert layer["precision"] == row["precision"]
        assert layer["gmacs_per_s"] == pytest.approx(layer["macs"] / layer["time_us"] / 1e3)
    assert all(layer["macs"] is None for layer in layers if layer not in convolutions)


def test_one_precision_on_one_runtime(invoke: Invoke, bundle: Path) -> None:
    result = invoke("inspect", bundle, "--profile", "--runtime", "openvino", "--precision", "int8", "--runs", "2")
    assert result.exit_code == 0, result.output
    titles = [line for line in result.stdout.splitlines() if " layers, " in line]
    assert [title.split(" (")[0] for title in titles] == ["openvino-int8 on openvino"]
    assert "fp32 on" not in result.stdout
    assert "litert" not in result.stdout


def test_nothing_to_time_exits_1_with_the_reason(invoke: Invoke, bundle: Path) -> None:
    result = invoke("inspect", bundle, "--profile", "--runtime", "litert")
    assert result.exit_code == 1
    assert "no layer of tiny.edgeseg could be timed: litert has no times per layer" in result.stderr
    absent = invoke("inspect", bundle, "--profile", "--precision", "fp16")
    assert absent.exit_code == 1
    assert "has no fp16 artifact, it has onnx-fp32" in absent.stderr


@pytest.mark.parametrize("option", [("--runtime", "openvino"), ("--precision", "int8")])
def test_what_only_a_profile_needs_is_bad_usage_without(option: tuple[str, str], invoke: Invoke, bundle: Path) -> None:
    result = invoke("inspect", bundle, *option)
    assert result.exit_code == 2
    assert f"{option[0]} needs --profile or --error" in result.stderr


def test_every_layer_is_compared_beside_its_time(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    options = ("--profile", "--error", "--precision", "int8", "--runs", "2", "--frames", "3")
    result = invoke("inspect", bundle, *options, "--json", tmp_path / "e.json")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "e.json").read_text())
    rows = {row["runtime"]: row for row in content["errors"]}
    assert set(rows) == {"litert", "onnxruntime", "openvino"}
    for name, row in rows.items():
        layers = row["layers"]
        assert (row["precision"], row["frames"], row["device"], row["reason"]) == ("int8", 3, "cpu", None)
        convolutions = [layer for layer in layers if "CONV" in layer["kind"].upper()]
        assert len(convolutions) == 5
        assert {layer["precision"] for layer in convolutions} == {"int8"}
        assert all(10 < layer["sqnr_db"] < 60 for layer in convolutions)
        assert row["worst"] == max(layers, key=lambda layer: layer["drop_db"])["name"]
        assert f"int8 on {name} (cpu): {len(layers)} layers against " in result.stdout
        assert [layer["time_us"] is not None for layer in convolutions] == [name != "litert"] * 5
    times = {row["runtime"]: row["time_us"] for row in content["profile"]["rows"] if row["layers"]}
    for name, time_us in times.items():
        # Most of the time is found again beside the errors; conversions have none.
        found = sum(layer["time_us"] or 0 for layer in rows[name]["layers"])
        assert 0.6 * time_us < found <= time_us * 1.001
    marked = [line for line in result.stdout.splitlines() if line.endswith("<- loses most")]
    assert len(marked) == 3
    assert content["board"]


def test_layers_are_compared_without_times(invoke: Invoke, bundle: Path) -> None:
    result = invoke("inspect", bundle, "--error", "--runtime", "onnxruntime")
    assert result.exit_code == 0, result.output
    header = next(line for line in result.stdout.splitlines() if line.startswith("layer "))
    assert header.split() == ["layer", "kind", "precision", "SQNR", "dB", "drop", "dB"]
    assert "on 8 golden frames" in result.stdout
    assert "peak of this core" not in result.stdout


def without(bundle: Path, kind: tuple[str, str] | None = None, golden: bool = True) -> None:
    """Take an artifact, or the golden frames, out of a bundle."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    gone = [a for a in manifest["artifacts"] if (a["format"], a["precision"]) == kind]
    for path in (file["path"] for artifact in gone for file in artifact["files"]):
        (bundle / path).unlink()
    manifest["artifacts"] = [a for a in manifest["artifacts"] if a not in gone]
    if not golden:
        manifest["golden"] = []
        shutil.rmtree(bundle / "golden")
    (bundle / MANIFEST).write_bytes(seal(manifest))


def test_without_fp32_there_is_nothing_to_compare_with(invoke: Invoke, bundle_copy: Path) -> None:
    without(bundle_copy, ("onnx", "fp32"))
    both = invoke("inspect", bundle_copy, "--error")
    assert both.exit_code == 0
    assert "onnx-int8 on onnxruntime: the bundle has no onnx-fp32 to compare with: convert again with" in both.stdout
    assert "openvino-int8 on openvino (cpu): " in both.stdout
    alone = invoke("inspect", bundle_copy, "--error", "--runtime", "onnxruntime")
    assert alone.exit_code == 1
    assert "no layer of copy.edgeseg could be compared: the bundle has no onnx-fp32" in alone.stderr
    exact = invoke("inspect", bundle_copy, "--error", "--precision", "fp32")
    assert exact.exit_code == 1
    assert "it has nothing to hold against fp32" in exact.stderr


def test_without_golden_frames_nothing_is_compared(invoke: Invoke, bundle_copy: Path) -> None:
    without(bundle_copy, golden=False)
    result = invoke("inspect", bundle_copy, "--error")
    assert result.exit_code == 1
    assert "has no golden frame to run" in result.stderr


def test_frames_need_error(invoke: Invoke, bundle: Path) -> None:
    result = invoke("inspect", bundle, "--profile", "--frames", "2")
    assert result.exit_code == 2
    assert "--frames needs --error" in result.stderr
