"""The wheel alone, without any engine: everything imports, everything explains itself."""

from __future__ import annotations

import json

import pytest

from edgeseg import __version__
from edgeseg.cli import COMMANDS

pytestmark = pytest.mark.slow

IMPORT_ALL = """
import importlib
import pkgutil
import edgeseg

def failed(name):
    raise

names = [
    module.name
    for module in pkgutil.walk_packages(edgeseg.__path__, "edgeseg.", onerror=failed)
    if not module.name.startswith(("edgeseg.converters", "edgeseg.frontier", "edgeseg.hil_report", "edgeseg.report"))
    and not module.name.startswith(("edgeseg.boards.fleet.", "edgeseg.boards.pytest_", "edgeseg.boards.suite"))
]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_only_the_light_packages_are_installed(base):
    assert {"edgeseg", "numpy", "opencv-python-headless", "click", "msgspec", "rich"} <= base.installed()
    assert len(base.installed()) < 16


def test_import_and_version(base):
    assert base.run("python", "-c", "import edgeseg; print(edgeseg.__version__)").stdout.strip() == __version__
    assert base.run("edgeseg", "--version").stdout.split()[-1] == __version__


def test_every_module_of_the_device_side_imports(base):
    assert int(base.run("python", "-c", IMPORT_ALL).stdout) > 30


@pytest.mark.parametrize("command", [(), *((name,) for name in sorted(COMMANDS))], ids=" ".join)
def test_help(base, command):
    text = base.run("edgeseg", *command, "--help").stdout
    assert text.startswith("Usage: edgeseg")
    assert "edgeseg boards" in text if command == ("boards",) else "Example" in text or "Try it" in text


def test_runtimes_says_what_to_install(base):
    text = base.run("edgeseg", "runtimes", "--json", "runtimes.json").stdout
    found = {entry["name"]: entry for entry in json.loads((base.path / "runtimes.json").read_text())["runtimes"]}
    assert [name for name, entry in found.items() if entry["installed"]] == ["fake"]
    for extra in ("onnx", "openvino", "tflite"):
        assert f"pip install 'edgeseg[{extra}]'" in text


def test_the_fake_runs(base, bundle, picture, assert_found, tmp_path):
    base.run("edgeseg", "run", bundle, picture, "-o", tmp_path / "out", "--runtime", "fake")
    assert_found(tmp_path / "out" / "masks" / picture.name)


def test_without_an_engine_all_pip_commands_are_named(base, bundle, picture, tmp_path):
    line = failure(base, "run", bundle, picture, "-o", tmp_path / "out")
    for extra in ("onnx", "openvino", "tflite"):
        assert f"pip install 'edgeseg[{extra}]'" in line


def test_dicom_without_its_extra(base, bundle, tmp_path):
    file = tmp_path / "a.dcm"
    file.write_bytes(bytes(128) + b"DICM" + bytes(64))
    line = failure(base, "run", bundle, file, "-o", tmp_path / "out", "--runtime", "fake")
    assert line == "error: pydicom is not installed, DICOM input needs it: pip install 'edgeseg[dicom]'"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("convert", "model.safetensors", "--calibration", "frames", "-o", "out.edgeseg"), "convert"),
        (("train", "frames", "-o", "out.safetensors"), "train"),
        (("demo", "-o", "out"), "convert"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_the_workstations_commands_name_their_extra(base, command, extra):
    name = f"edgeseg {command[0]}"
    line = failure(base, *command)
    assert line == f"error: torch is not installed, {name} needs it: pip install 'edgeseg[{extra}]'"
    assert not (base.path / command[-1]).exists()


def failure(environment, *command) -> str:
    """The one line on stderr of a command that fails."""
    done = environment.run("edgeseg", *command, expect=1)
    (line,) = done.stderr.strip().splitlines()
    return line
