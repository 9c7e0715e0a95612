from __future__ import annotations

import json
import sys

from click.testing import CliRunner

from edgeseg.commands.runtimes import runtimes


def listed(tmp_path, expect: int = 0) -> tuple[str, dict]:
    result = CliRunner().invoke(runtimes, ["--json", str(tmp_path / "r.json")])
    assert result.exit_code == expect, result.output
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["schema"] == 1
    return result.output, {entry["name"]: entry for entry in document["runtimes"]}


def test_lists_what_is_proven_here(tmp_path):
    text, found = listed(tmp_path)
    assert set(found) == {"onnxruntime", "openvino", "litert", "fake"}
    for entry in found.values():
        assert entry["installed"]
        assert entry["version"]
        assert entry["reason"] is entry["install"] is None
        [cpu] = [d for d in entry["devices"] if d["name"] == "cpu"]
        assert (cpu["usable"], cpu["reason"], cpu["verified"]) == (True, None, True)
        assert entry["name"] == "fake" or (cpu["executed"]["precision"], cpu["executed"]["int8_layers"]) == ("fp32", 0)
    assert found["openvino"]["formats"] == ["openvino"]
    assert any("onnxruntime" in line and " cpu " in line and " yes" in line for line in text.splitlines())


def test_says_why_not_and_what_nobody_tested(tmp_path):
    text, found = listed(tmp_path)
    cuda = next(d for d in found["onnxruntime"]["devices"] if d["name"] == "cuda")
    assert cuda == {**cuda, "usable": False, "verified": False}
    assert "CUDAExecutionProvider" in cuda["reason"]
    line = next(line for line in text.splitlines() if " cuda " in line)
    assert "pip install onnxruntime-gpu" in line
    assert "not verified on hardware" in line


def test_a_missing_engine_comes_with_its_pip_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    text, found = listed(tmp_path)
    entry = found["openvino"]
    assert (entry["installed"], entry["version"], entry["devices"]) == (False, None, [])
    assert entry["install"] == "pip install 'edgeseg[openvino]'"
    assert entry["install"] in text
    assert found["onnxruntime"]["installed"]


def test_a_broken_engine_does_not_hide_the_others(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('libfoo.so.1: not\\nfound')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, module)
    _, found = listed(tmp_path)
    assert found["onnxruntime"]["reason"] == "ImportError: libfoo.so.1: not found"
    assert found["litert"]["installed"]


def test_help_has_an_example():
    assert "edgeseg runtimes --json" in CliRunner().invoke(runtimes, ["--help"]).output
