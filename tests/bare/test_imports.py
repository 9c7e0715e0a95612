"""What importing costs, told by what was imported."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgeseg
from edgeseg import plugins
from edgeseg.errors import MissingDependency

ROOT = Path(__file__).parents[2]
HEAVY = {"cv2", "torch", "onnx", "onnxruntime", "openvino", "nncf", "monai", "ai_edge_litert", "pydicom", "rich"}


def imported_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_import_edgeseg_is_nearly_free():
    modules = imported_by("import edgeseg")
    assert "edgeseg" in modules
    assert not modules & {*HEAVY, "numpy", "click", "msgspec", "edgeseg.types"}


def test_type_checkers_know_the_same_names():
    stub = (ROOT / "edgeseg" / "__init__.pyi").read_text()
    found = {name: module for module, name, _ in re.findall(r"from (\S+) import (\w+) as (\w+)", stub)}
    assert found == edgeseg._EXPORTS
    assert all(getattr(edgeseg, name).__name__ == name for name in found)


def test_every_module_of_the_device_side_is_under_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers, device = ({*re.findall(r"edgeseg\.\w+", str(contract))} for contract in contracts)
    folder = ROOT / "edgeseg"
    found = (*folder.glob("[!_]*.py"), *(path.parent for path in folder.glob("*/__init__.py")))
    modules = {f"edgeseg.{path.stem}" for path in found}
    assert layers == modules
    assert device == modules - {"edgeseg.cli", "edgeseg.commands", "edgeseg.converters"}


def test_opening_a_bundle_imports_no_engine_and_no_opencv():
    modules = imported_by("import edgeseg; edgeseg.open_bundle, edgeseg.EdgesegError")
    assert "edgeseg.bundle" in modules
    assert not modules & HEAVY


def test_the_command_line_imports_no_engine_and_no_subcommand():
    modules = imported_by("import edgeseg.cli")
    assert not modules & HEAVY
    assert not {name for name in modules if name.startswith("edgeseg.commands.")}


def test_load_imports_no_engine():
    modules = imported_by("import edgeseg; edgeseg.load")
    assert "edgeseg.runtimes.segmenter" in modules
    assert not modules & (HEAVY - {"cv2"})


@pytest.mark.parametrize("extra", plugins.EXTRAS)
def test_what_is_required_is_what_the_extra_installs(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(wanted: str) -> set[str]:
        found = set()
        for line in project["optional-dependencies"][wanted]:
            name, inner = re.match(r"([\w.-]+)(?:\[(.*?)\])?", line).groups()
            found |= {name} if name != "edgeseg" else set().union(*(names(other) for other in inner.split(",")))
        return found

    assert set(plugins.EXTRAS[extra]) <= names(extra)
    plugins.require(extra, "this test")


def test_require_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(plugins.EXTRAS, "convert", ("numpy", "no-such-package", "torch"))
    with pytest.raises(MissingDependency) as caught:
        plugins.require("convert", "edgeseg convert")
    assert str(caught.value) == (
        "no-such-package is not installed, edgeseg convert needs it: pip install 'edgeseg[convert]'"
    )
    assert isinstance(caught.value, ImportError)
