"""The comparison with Olive and NNCF: what needs no installation of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgeseg.bundle import open_bundle

PEERS = Path(__file__).parents[2] / "tools" / "peers"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Import a module of tools/peers."""
    monkeypatch.syspath_prepend(PEERS)

    def load(name: str) -> ModuleType:
        return __import__(name)

    return load


def compare(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PEERS / "compare.py", *args]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def result(script, name: str, side: str, runtime: str, p50: float | None, dice: list[float], hc: list[float]):
    return script("contest").Result(
        name, side, runtime, "", True, 1.5, p50_ms=p50, p10_ms=p50, dice=sum(dice) / len(dice), agreement=0.998,
        sqnr_db=30.0 if side != "source" else None, frame_dice=dice, frame_hc_mm=hc, int8_layers=3, layers=4,
    )  # fmt: skip


def test_bad_usage_and_a_folder_without_frames_are_one_line(bundle: Path, tmp_path: Path) -> None:
    usage = compare(bundle)
    assert usage.returncode == 2
    assert "Missing option '--data'" in usage.stderr
    unknown = compare(bundle, "--data", tmp_path, "--peer", "caffe")
    assert unknown.returncode == 2
    assert "'caffe' is not one of" in unknown.stderr
    empty = compare(bundle, "--data", tmp_path, "--work", tmp_path / "work")
    assert empty.returncode == 1
    assert "has no frames" in empty.stderr
    assert "Traceback" not in empty.stderr
    assert not (tmp_path / "work").exists()


def test_other_frames_than_those_calibrated_with_are_refused(script, bundle: Path, make_frames, tmp_path: Path) -> None:
    from edgeseg.errors import BadInput

    other = make_frames(tmp_path / "other", seed=7)
    with pytest.raises(BadInput, match=r"does not give the 24 calibration frames of tiny\.edgeseg"):
        script("compare").calibration_frames(open_bundle(bundle), other)


def test_calibration_frames_are_written_as_the_network_gets_them(
    script, bundle: Path, frames: Path, tmp_path: Path
) -> None:
    import numpy as np

    from edgeseg.preprocess import to_input

    opened = open_bundle(bundle)
    folder = script("compare").calibration_frames(opened, frames)
    assert (folder.split, len(folder)) == ("train", 24)
    written = script("peers").write_frames(folder, opened.preprocess, "image", tmp_path)
    files = sorted((written / "image").iterdir())
    assert len(files) == 24
    pixels = np.fromfile(files[3], np.float32).reshape(1, 1, 64, 96)
    assert (pixels == to_input(folder.samples[3].read_frame(), opened.preprocess)).all()
    assert pixels.max() > 100  # raw pixels: the normalisation is inside the model


def test_the_source_comes_first_and_every_int8_takes_part(script, bundle: Path) -> None:
    opened = open_bundle(bundle)
    entries = script("compare").own_entries([opened, opened])
    assert [(e.name.split()[1], e.side, e.runtime) for e in entries[:2]] == [
        ("onnx-fp32", "source", "onnxruntime"),
        ("openvino-fp32", "source", "openvino"),
    ]
    assert sorted(e.name.split()[1] for e in entries[2:]) == ["onnx-int8"] * 2 + ["openvino-int8"] * 2
    assert {e.side for e in entries[2:]} == {"edgeseg"}


def test_a_contest_of_real_models(script, bundle: Path, frames: Path) -> None:
    from edgeseg.dataset import read_folder

    opened = open_bundle(bundle)
    entries = script("compare").own_entries([opened])
    held = read_folder(frames).select("test")
    results = script("compare").contest(entries, held, 2, 1, 2)
    source, exact, *quantized = results
    assert (source.agreement, source.sqnr_db) == (1.0, None)
    assert exact.sqnr_db > 80
    for one in quantized:
        assert one.precision == "int8"
        assert 15 < one.sqnr_db < 80
        assert one.agreement > 0.98
        assert 0 < one.p10_ms <= one.p50_ms
        assert one.worst_dice == min(one.frame_dice)
        assert one.worst_frame in {sample.name for sample in held.samples}
        assert one.dice == pytest.approx(sum(one.frame_dice) / len(held))
        assert one.hc_mae_mm == pytest.approx(sum(one.frame_hc_mm) / len(held))


def test_verdicts_are_paired_by_engine_and_loud_where_a_peer_wins(script) -> None:
    exams = [f"exam{i}" for i in range(20)]
    good, bad, hc = [0.97] * 20, [0.95] * 20, [2.0] * 20
    results = [
        result(script, "ours a", "edgeseg", "openvino", 4.0, good, hc),
        result(script, "ours b", "edgeseg", "onnxruntime", 8.0, bad, [2.5] * 20),
        result(script, "nncf", "nncf", "openvino", 5.0, bad, hc),
        result(script, "olive", "olive", "onnxruntime", 6.0, good, hc),
        result(script, "fp32", "source", "openvino", 9.0, good, hc),
    ]
    first, second = script("verdict").verdicts(results, exams)
    assert (first.ours, first.theirs, first.speed, first.holds) == ("ours a", "nncf", 1.25, True)
    assert first.dice == pytest.approx((0.02, 0.02, 0.02))
    assert (second.ours, second.theirs, second.faster, second.no_less_accurate) == ("ours b", "olive", False, False)
    text = script("verdict").verdict_table([first, second])
    lines = text.splitlines()
    assert lines[0].startswith("| edgeseg | peer  | engine")
    assert set(lines[1]) <= set("|- ")
    assert "1.25x" in lines[2]
    assert "+2.00 [+2.00, +2.00]" in lines[2]
    assert lines[2].rstrip(" |").endswith("faster and no less accurate")
    assert lines[3].rstrip(" |").endswith("SLOWER and LESS ACCURATE")
    assert len({len(line) for line in lines}) == 1


def test_a_difference_within_chance_is_no_less_accurate(script) -> None:
    exams = [f"exam{i}" for i in range(20)]
    theirs = [0.96 + 0.001 * i for i in range(20)]
    ours = [value + (0.004 if i % 2 else -0.005) for i, value in enumerate(theirs)]
    results = [
        result(script, "ours", "edgeseg", "openvino", 4.0, ours, [2.0] * 20),
        result(script, "nncf", "nncf", "openvino", 5.0, theirs, [2.0] * 20),
    ]
    (found,) = script("verdict").verdicts(results, exams)
    assert found.dice[0] < 0 < found.dice[2]
    assert found.no_less_accurate


def test_the_table_shows_what_was_not_measured_as_a_dash(script) -> None:
    one = result(script, "fp32", "source", "openvino", 9.0, [0.9, 0.8], [2.0, 3.0])
    header, _, row = script("verdict").table([one]).splitlines()
    cells = dict(zip(*([c.strip() for c in line.strip("|").split("|")] for line in (header, row)), strict=True))
    assert cells["model"] == "fp32"
    assert (cells["p50 ms"], cells["Dice"], cells["SQNR dB"], cells["int8 layers"]) == ("9.00", "85.00", "-", "3/4")
    assert (cells["worst frame"], cells["HC mm"]) == ("-", "-")


def test_the_recipe_of_olive_is_its_default_but_for_what_is_named(script, bundle: Path, tmp_path: Path) -> None:
    model = bundle / "artifacts" / "model.fp32.onnx"
    plain = script("olive_int8").run_config(model, tmp_path, tmp_path / "out", {})
    assert plain["passes"] == {"int8": {"type": "OnnxStaticQuantization", "data_config": "frames"}}
    params = plain["data_configs"][0]["load_dataset_config"]["params"]
    assert (params["input_names"], params["input_shapes"]) == (["image"], [[1, 1, 64, 96]])
    by_hand = next(p for p in script("peers").PEERS if not p.default)
    changed = script("olive_int8").run_config(model, tmp_path, tmp_path / "out", dict(by_hand.options))
    assert changed["passes"]["int8"]["activation_type"] == "uint8"
    assert json.dumps(changed)


def test_a_peer_that_fails_says_its_last_lines(script, tmp_path: Path) -> None:
    peers = script("peers")
    broken = peers.Peer("broken", "nncf_int8.py", ".xml", "openvino", "")
    with pytest.raises(peers.PeerFailed, match=r"could not quantize by broken \(exit 1\): .*nowhere"):
        peers.make(broken, Path(sys.executable), tmp_path / "nowhere.onnx", tmp_path, tmp_path)
