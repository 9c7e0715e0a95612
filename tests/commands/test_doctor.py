from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.commands.engine_probe import engine_state, engine_states


def doctor(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeseg.cli", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def package(folder: Path, name: str, code: str) -> str:
    """A package that is found before the real one; the value for PYTHONPATH."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return str(folder)


def test_this_machine_is_explained(tmp_path: Path) -> None:
    done = doctor("--json", tmp_path / "d.json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "d.json").read_text())
    assert (document["schema"], document["errors"]) == (1, 0)
    assert done.stdout.splitlines()[0] == document["board"]
    assert {engine["name"]: engine["works"] for engine in document["engines"]} == dict.fromkeys(
        ("litert", "onnxruntime", "openvino"), True
    )
    for finding in document["findings"]:
        assert set(finding) == {"code", "severity", "what", "why", "fix"}
        assert f"{finding['severity']}: {finding['what']} [{finding['code']}]" in done.stdout
    assert document["warnings"] == sum(f["severity"] == "warning" for f in document["findings"])


def test_a_broken_engine_is_an_error(tmp_path: Path) -> None:
    path = package(tmp_path / "site", "onnxruntime", "raise ImportError('libfoo.so.1: not\\nfound')")
    done = doctor("--json", tmp_path / "d.json", PYTHONPATH=path)
    assert done.returncode == 1
    assert "error: onnxruntime is installed but runs nothing: ImportError: libfoo.so.1: not found" in done.stdout
    assert "fix: pip install --force-reinstall onnxruntime" in done.stdout
    assert json.loads((tmp_path / "d.json").read_text())["errors"] == 1


def test_a_profile_that_is_wrong_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "name = 'mine'\ntitle = 'Mine'\n[[engines]]\nruntime = 'litert'\npresicions = []\n"
    )
    done = doctor("--profiles", tmp_path)
    assert done.returncode == 1
    assert "unknown key 'presicions' in engines[0], did you mean 'precisions'?" in done.stdout


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = doctor("--profiles", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_an_engine_that_crashes_takes_nothing_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys\nprint('bad instruction', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 4)"
    monkeypatch.setenv("PYTHONPATH", package(tmp_path, "openvino", code))
    states = {state.name: state for state in engine_states()}
    assert states["openvino"].reason == "died of signal 4 (bad instruction)"
    assert not states["openvino"].works
    assert states["onnxruntime"].works


def test_an_engine_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = "import sys\nsys.modules['openvino'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    state = engine_state("openvino")
    assert (state.version, state.reason, state.devices) == (None, "", ())
    assert state.install == "pip install 'edgeseg[openvino]'"


def test_what_lies_in_the_current_folder_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "onnxruntime", "raise RuntimeError('not an engine')")
    monkeypatch.chdir(tmp_path)
    assert engine_state("onnxruntime").works


def test_devices_that_are_not_there_are_not_listed() -> None:
    devices = {device.name: device for device in engine_state("onnxruntime").devices}
    assert (devices["cpu"].listed, devices["cpu"].usable) == (True, True)
    assert (devices["cuda"].listed, devices["cuda"].usable) == (False, False)
