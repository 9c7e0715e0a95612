"""The command line itself: help without heavy imports, one-line errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgeseg import __version__
from edgeseg.cli import COMMANDS

Invoke = Callable[..., Result]
HEAVY = "torch onnx onnxruntime openvino nncf monai litert_torch ai_edge_litert ai_edge_quantizer safetensors pydicom"

CHILD = f"""
import json, sys
from edgeseg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    code = error.code
print(json.dumps([code, [m for m in {HEAVY!r}.split() if m in sys.modules]]), file=sys.stderr)
"""


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_every_command_has_an_example_and_imports_no_engine(command: str) -> None:
    done = python(CHILD, command, "--help")
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []]
    assert done.stdout.startswith("Usage: ")
    assert "Example" in done.stdout
    assert f"edgeseg {command}" in done.stdout


def test_the_group_lists_every_command_without_importing_one() -> None:
    code = "import sys; from edgeseg.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in sys.modules if m.startswith('edgeseg.commands.')], 'numpy' in sys.modules)"
    done = python(code)
    *text, loaded = done.stdout.splitlines()
    assert loaded.startswith("[] ")
    assert all(any(line.split()[:1] == [name] for line in text) for name in COMMANDS)


def test_importing_edgeseg_is_light() -> None:
    done = python(f"import sys, edgeseg; print([m for m in {HEAVY!r}.split() + ['cv2', 'click'] if m in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_the_version_is_said(invoke: Invoke) -> None:
    assert __version__ in invoke("--version").stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("verify",), "Missing argument 'BUNDLE'"),
        (("verify", "x", "--nonsense"), "No such option"),
        (("convert", "x.onnx"), "Missing option '--calibration'"),
        (("convert", "x.onnx", "--calibration", "c", "-o", "b", "--format", "caffe"), "'caffe' is not one of"),
        (("convert", "x.onnx", "--calibration", "c", "-o", "b", "--precision", "int4"), "'int4' is not one of"),
        (("convert", "x.onnx", "--calibration", "c", "-o", "b", "--mean", "a,b"), "expected numbers as in 0.485"),
        (("bench", "x", "--rounds", "0"), "Invalid value for '--rounds'"),
    ],
)
def test_bad_usage_exits_2_in_one_line(args: tuple[str, ...], message: str, invoke: Invoke) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("verify", "nowhere"), "nowhere is not a bundle, expected a folder"),
        (("bench", "nowhere"), "nowhere is not a bundle"),
        (("convert", "x.onnx", "--calibration", "nowhere", "-o", "b"), "nowhere has no frames"),
        (("convert", "x.onnx", "--calibration", "nowhere", "-o", "b", "--size", "-3"), "size is '-3', expected"),
    ],
)
def test_a_failed_run_exits_1_in_one_line(
    args: tuple[str, ...], message: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*args)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_traceback_is_shown_on_demand_only() -> None:
    code = "from edgeseg.cli import main; main()"
    plain, debug = python(code, "verify", "nowhere"), python(code, "--debug", "verify", "nowhere")
    assert plain.returncode == debug.returncode == 1
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "BundleError: nowhere is not a bundle" in debug.stderr


def test_a_reader_that_goes_away_is_no_traceback(bundle: Path) -> None:
    command = f"{sys.executable} -c 'from edgeseg.cli import main; main()' verify {bundle} --runtime onnxruntime | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
