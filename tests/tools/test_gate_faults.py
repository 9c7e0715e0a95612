"""The tool that shows what the gates see prepares frames as edgeseg does, but for the one fault."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from edgeseg import open_bundle
from edgeseg.samples import FRAMES
from edgeseg.types import ScanArea

TOOL = Path(__file__).parents[2] / "tools" / "gate_faults.py"


@pytest.fixture
def tool() -> ModuleType:
    spec = spec_from_file_location("gate_faults", TOOL)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def two_frames(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for path in sorted((FRAMES / kind).glob("*.png"))[:2]:
            shutil.copy(path, tmp_path / kind)
    return tmp_path


@pytest.mark.parametrize("area", [None, ScanArea(left=0.25, top=0.25, width=0.5, height=0.5)], ids=["whole", "part"])
def test_what_is_clean_reads_as_the_source(tool, two_frames, bundle, area):
    opened = open_bundle(bundle)
    manifest = replace(opened.manifest, preprocess=replace(opened.preprocess, scan_area=area))
    ours = replace(opened, manifest=manifest)
    parity = tool.measure(ours, ours, two_frames, None)
    assert parity["onnx-fp32", "clean"].agreement == 1.0
    assert parity["onnx-fp32", "clean"].sqnr_db == 200.0
    assert parity["onnx-fp32", "half-pixel shift"].sqnr_db < 60
