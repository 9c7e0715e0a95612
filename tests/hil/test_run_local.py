"""The whole suite on this machine, by the command line: the record, limits, refusals, a dead runner."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import events, wait_until

LAB = """
[measures]
warm_up_rounds = 2
bench_rounds = 2
bench_repeats = 2
soak_minutes = 0.02
soak_fps = 5.0
soak_deadline_ms = 2000.0
runtimes = ["litert"]

[limits]
soak_p999_ms = 2000.0
soak_missed = 10
soak_drift_mib = 50.0
MORE

[[boards]]
name = "here"
transport = "local"
work = "WORK"
lease = "LEASE"
python = "PYTHON"
command = ["PYTHON", "-m", "edgeseg.cli"]
"""


@pytest.fixture
def lab(tmp_path):
    def write(more: str = "") -> Path:
        text = LAB.replace("PYTHON", sys.executable).replace("WORK", str(tmp_path / "work"))
        (tmp_path / "lab.toml").write_text(text.replace("LEASE", str(tmp_path / "lease")).replace("MORE", more))
        return tmp_path / "lab.toml"

    return write


def test_every_step_is_on_record_with_its_samples(lab, bundle, invoke, tmp_path):
    result = invoke("hil", "run", "--env", lab(), bundle, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = tmp_path / "out" / "record.jsonl"
    steps = {event["step"]: event for event in events(record, "step")}
    assert list(steps) == ["deploy", "verify", "warm-up", "bench", "soak"]
    assert {event["status"] for event in steps.values()} == {"passed"}
    assert {row["runtime"] for row in steps["bench"]["result"]["rows"]} == {"litert"}
    assert [len(row["infer_ms"]) for row in steps["bench"]["samples"]] == [4, 4]
    assert steps["soak"]["result"]["passed"] is True

    first, *_, last = events(record)
    manifest = json.loads((bundle / "manifest.json").read_text())
    hashes = {file["path"]: file["sha256"] for a in manifest["artifacts"] for file in a["files"]}
    assert first["bundles"][0]["files"] == hashes
    assert first["event"] == "run"
    assert "key" not in first["environment"][0]
    assert (last["event"], last["status"]) == ("end", "passed")
    facts = events(record, "board")[0]["facts"]
    assert facts["engines"]["litert"]
    assert len(facts["machine"]) == 16
    assert all(event["rc"] == 0 for event in events(record, "command"))
    cost = events(record, "cost")[0]
    assert 0 < cost["overhead_s"] < cost["seconds"]
    assert cost["measured_s"] + cost["overhead_s"] == pytest.approx(cost["seconds"], abs=1e-3)
    assert 'tests="5" failures="0" errors="0" skipped="0"' in (tmp_path / "out" / "junit.xml").read_text()
    assert not list((tmp_path / "work").iterdir())


def test_a_limit_that_is_not_kept_fails_and_is_not_tried_again(lab, bundle, invoke, tmp_path):
    result = invoke("hil", "run", "--env", lab("p99_ms = 0.000001"), bundle, "-o", tmp_path / "out")
    assert result.exit_code == 1
    bench = [event for event in events(tmp_path / "out" / "record.jsonl", "step") if event["step"] == "bench"]
    assert [event["status"] for event in bench] == ["failed"]
    assert "p99" in bench[0]["reason"]
    assert "expected at most 1e-06 ms" in bench[0]["reason"]
    assert "here: tiny.edgeseg: failed: bench: " in result.output
    assert "<failure message=" in (tmp_path / "out" / "junit.xml").read_text()


def test_a_bundle_that_does_not_verify_is_not_measured(lab, bundle_copy, invoke, tmp_path):
    """Its golden logits are another network's; every hash is right."""
    import numpy as np

    from edgeseg.bundle import file_record, open_bundle, write_manifest
    from edgeseg.manifest import decode_manifest

    for path in (bundle_copy / "golden").glob("*.npy"):
        np.save(path, -np.load(path))
    manifest = decode_manifest((bundle_copy / "manifest.json").read_bytes())
    from edgeseg.manifest import map_records

    write_manifest(bundle_copy, map_records(manifest, lambda r: file_record(bundle_copy / r.path, bundle_copy)))
    open_bundle(bundle_copy)
    result = invoke("hil", "run", "--env", lab(), bundle_copy, "-o", tmp_path / "out")
    assert result.exit_code == 1
    steps = {event["step"]: event["status"] for event in events(tmp_path / "out" / "record.jsonl", "step")}
    assert steps == {"deploy": "passed", "verify": "failed"}


def test_a_bundle_the_board_cannot_run_is_refused_before_anything_goes_there(lab, bundle, invoke, tmp_path):
    path = lab()
    path.write_text(path.read_text().replace('["litert"]', '["openvino"]') + 'profile = ""\n')
    work = tmp_path / "work"
    only = tmp_path / "only.edgeseg"
    _without(bundle, only, "openvino")
    result = invoke("hil", "run", "--env", path, only, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "only.edgeseg: refused: only.edgeseg cannot run on here: it has nothing for openvino" in result.output
    assert not [e for e in events(tmp_path / "out" / "record.jsonl", "command") if e["step"] not in ("probe",)]
    assert not work.exists() or not list(work.iterdir())


def _without(bundle: Path, target: Path, runtime: str) -> None:
    import shutil
    from dataclasses import replace

    from edgeseg.bundle import write_manifest
    from edgeseg.manifest import decode_manifest

    shutil.copytree(bundle, target)
    manifest = decode_manifest((target / "manifest.json").read_bytes())
    kept = tuple(a for a in manifest.artifacts if a.format != runtime)
    for artifact in manifest.artifacts:
        if artifact not in kept:
            for file in artifact.files:
                (target / file.path).unlink()
    write_manifest(target, replace(manifest, artifacts=kept))


def test_a_record_of_a_killed_runner_is_gone_on_with(lab, bundle, invoke, tmp_path):
    record = tmp_path / "out" / "record.jsonl"
    words = ["hil", "run", "--env", str(lab()), str(bundle), "-o", str(tmp_path / "out")]
    runner = subprocess.Popen(
        [sys.executable, "-m", "edgeseg.cli", *words], stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert wait_until(lambda: record.exists() and len(events(record, "step")) >= 2, 120)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    before = [(e["step"], e["status"]) for e in events(record, "step")]
    assert not events(record, "end")

    refused = invoke("hil", "run", "--env", lab(), bundle, "-o", tmp_path / "out")
    assert refused.exit_code == 1
    assert "is there already" in refused.stderr
    resumed = invoke("hil", "run", "--env", lab(), bundle, "--resume", record, "--wait", "30")
    assert resumed.exit_code == 0, resumed.output
    after = [(e["step"], e["status"]) for e in events(record, "step")]
    assert [step for step, _ in after[: len(before)]] == [step for step, _ in before]
    # Deployed again, everything else once.
    assert sorted(step for step, _ in after) == ["bench", "deploy", "deploy", "soak", "verify", "warm-up"]
    assert [event["status"] for event in events(record, "end")] == ["passed"]

    third = invoke("hil", "run", "--env", lab(), bundle, "--resume", record)
    assert third.exit_code == 0
    assert "passed, by the earlier part of the record" in third.output


def test_ctrl_c_ends_a_run_at_once_and_what_it_does_on_the_board(lab, bundle, tmp_path):
    path, record = lab(), tmp_path / "out" / "record.jsonl"
    path.write_text(path.read_text().replace("soak_minutes = 0.02", "soak_minutes = 30.0"))
    words = ["hil", "run", "--env", str(path), str(bundle), "-o", str(tmp_path / "out")]
    runner = subprocess.Popen(
        [sys.executable, "-m", "edgeseg.cli", *words], stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert wait_until(lambda: record.exists() and "bench" in [e["step"] for e in events(record, "step")], 120)
    assert wait_until(lambda: _running("soak", tmp_path), 60)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(20) == 130
    assert wait_until(lambda: not _running("", tmp_path), 30)


def _running(word: str, folder: Path) -> bool:
    """Whether a process of edgeseg works in a folder of a test."""
    lines = []
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(found.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return any(str(folder) in line and f"edgeseg.cli {word}" in line for line in lines)


def test_another_bundle_does_not_go_on(lab, bundle, bundle_copy, invoke, tmp_path):
    from edgeseg.boards.hil.bundles import read_candidate
    from edgeseg.boards.hil.station import Station

    digest = read_candidate(bundle).digest
    record = tmp_path / "record.jsonl"
    with Station(record) as station:
        station.write(
            "run", schema=1, run="r", boards=["here"], bundles=[{"name": "copy.edgeseg", "digest": digest[::-1]}]
        )
    result = invoke("hil", "run", "--env", lab(), bundle_copy, "--resume", record)
    assert result.exit_code == 1
    assert "copy.edgeseg is not the bundle of that name" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("bundle",), 2, "which board? --board NAME, or --env FILE"),
        (("bundle", "--board", "nowhere"), 1, "unknown board 'nowhere', expected one of local"),
        (("nowhere", "--board", "local"), 1, "nowhere is not a bundle"),
        (("bundle", "--env", "nowhere.toml"), 1, "nowhere.toml cannot be read"),
        (("bundle", "bundle", "--board", "local"), 1, "two bundles have the same name"),
    ],
)
def test_what_is_wrong_with_a_command_line(words, code, message, bundle, invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = invoke("hil", "run", *(bundle if word == "bundle" else word for word in words))
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
