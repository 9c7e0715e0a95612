"""Segmenters against bare engines and a script: that all sides do the same work, and how they are judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import edgeseg
from edgeseg import plugins

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Import a module of tools or tools/peers."""
    for folder in (TOOLS, TOOLS / "peers"):
        monkeypatch.syspath_prepend(folder)

    def load(name: str) -> ModuleType:
        return __import__(name)

    return load


def test_every_sequence_of_a_bare_engine_gives_what_the_session_gives(script, bundle: Path) -> None:
    bare = script("bare_engines")
    opened = edgeseg.open_bundle(bundle)
    for artifact in opened.artifacts:
        runtime = plugins.ENGINE_OF[artifact.format]
        with edgeseg.load(opened, runtime=runtime, precision=artifact.precision) as segmenter:
            session = segmenter._session
            image = bare.pixels_of(session.inputs[0])
            expected = session.run({session.inputs[0].name: image})[session.outputs[0].name]
            small = bare.network_frame(artifact)
            assert segmenter(small).mask.shape == small.shape == (64, 96)
        ways = bare.sequences(artifact, 1)
        assert len(ways) == (1 if runtime == "litert" else 2)
        for way, call in ways.items():
            found = call()
            if isinstance(found, np.ndarray):
                np.testing.assert_array_equal(found, expected, err_msg=way)


@pytest.mark.parametrize("lean", [False, True])
def test_the_script_gives_the_same_mask(script, bundle: Path, lean: bool) -> None:
    opened = edgeseg.open_bundle(bundle)
    frame = script("segmenter_overhead").whole_frame(opened)
    assert frame.shape == (540, 800)
    with edgeseg.load(opened, runtime="onnxruntime", precision="fp32") as segmenter:
        mask = segmenter(frame).mask
        found = script("bare_engines").plain_script(segmenter.artifact, 1, lean)(frame)
    assert mask.any()
    assert (found != mask).mean() < 1e-4


def test_turns_are_interleaved_and_every_other_one_backwards(script) -> None:
    made: list[str] = []

    def calls(name: str, seconds: float):
        return lambda count: (made.append(f"{name}{count}"), [seconds] * count)[1]

    turns = script("in_turns")
    times = turns.in_turns({"a": calls("a", 0.001), "b": calls("b", 0.003)}, 31)
    assert "".join(made) == "a5b5" + "b10a10" + "a10b10" + "b10a10" + "a10b10"
    assert times["b"].p50 == pytest.approx([3000.0] * 4)
    assert times["b"].typical == times["b"].p99 == pytest.approx(3000)
    assert turns.difference(times["b"], times["a"]) == pytest.approx(2000)


def test_a_turn_times_each_call_and_warms_up_first(script) -> None:
    made: list[int] = []
    found = script("in_turns").turn(lambda: made.append(1))(5)
    assert len(found) == 5
    assert min(found) >= 0
    assert len(made) == 5 + script("in_turns").WARM_UPS


def test_one_command_prints_and_writes_every_line(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, TOOLS / "segmenter_overhead.py", bundle, "--calls", 5]
    command += ["--json", tmp_path / "overhead.json"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    content = json.loads((tmp_path / "overhead.json").read_text())
    lines = content["lines"]
    assert done.returncode == (0 if all(line["passed"] for line in lines) else 1)
    assert sum(line["what"] == "over the engine, p99" for line in lines) == 6
    assert sum(line["what"] == "frame, outside the engine" for line in lines) == 6
    assert sum(line["what"] == "frame, against script" for line in lines) == 6
    assert sum(line["what"] == "frame, the fastest" for line in lines) == 1
    table = done.stdout.splitlines()[2:]
    assert len(table) == len(lines) + 2
    assert len({len(row) for row in table}) == 1


def test_what_cannot_be_measured_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "segmenter_overhead.py"), str(tmp_path / "missing.edgeseg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("segmenter_overhead: ")
    assert "Traceback" not in done.stderr


def test_an_environment_without_model_api_says_so(script, bundle: Path, tmp_path: Path) -> None:
    peer = script("model_api_peer")
    frame = np.zeros((54, 80, 3), np.uint8)
    with pytest.raises(script("peers").PeerFailed, match=r"model_api ended: run .*model_api_speed\.py by hand"):
        peer.ModelApi(Path(sys.executable), bundle / "artifacts" / "model.fp32.xml", frame, tmp_path)


def test_the_colour_student_gives_the_masks_of_the_student(script) -> None:
    import torch

    from edgeseg import samples
    from edgeseg.converters.checkpoint import load_checkpoint

    student = load_checkpoint(samples.STUDENT)[0].eval()
    gray = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.no_grad():
        expected = student(gray)
        found = script("colour_student").colour().eval()(gray.expand(1, 3, 256, 256))
    torch.testing.assert_close(found[:, 1:] - found[:, :1], expected, rtol=1e-3, atol=1e-3)
