"""What lies in the wheel and in the sdist."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LARGEST_WHEEL_BYTES = 20_000_000
SIBLINGS = ("converters", "runtimes", "boards")


@pytest.fixture(scope="module")
def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(folder: Path, pattern: str, under: str) -> set[str]:
    """Files of the repository under the name that they have in the wheel."""
    found = (path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file())
    return {f"{under}/{path.as_posix()}" for path in found if "__pycache__" not in path.parts}


def test_name(wheel):
    import edgeseg

    assert wheel.name == f"edgeseg-{edgeseg.__version__}-py3-none-any.whl"


def test_every_module_is_there_under_one_name(content):
    own = {path for path in tracked(ROOT / "edgeseg", "*.py", "edgeseg") if path.split("/")[1] not in SIBLINGS}
    modules = own.union(*(tracked(ROOT / name, "*.py", f"edgeseg/{name}") for name in SIBLINGS))
    assert len(modules) > 50
    assert {path for path in content if path.endswith(".py")} == modules
    assert {path.split("/")[0] for path in content if ".dist-info/" not in path} == {"edgeseg"}


def test_what_is_not_code_is_there(content):
    samples = tracked(ROOT / "edgeseg" / "samples", "*", "edgeseg/samples")
    profiles = tracked(ROOT / "boards" / "profiles", "*.toml", "edgeseg/boards/profiles")
    assert samples <= content
    assert profiles <= content
    assert "edgeseg/py.typed" in content
    assert "edgeseg/__init__.pyi" in content
    for suffix in ("probe.onnx", "probe.tflite", "probe.xml", "probe.bin", ".safetensors", ".png"):
        assert any(path.startswith("edgeseg/samples/") and path.endswith(suffix) for path in content), suffix
    assert any(path.endswith(".toml") for path in profiles)


def test_nothing_else_is_there(content):
    kinds = {Path(path).suffix for path in content if ".dist-info/" not in path}
    assert not kinds & {".pyc", ".so", ".c"}
    assert not [path for path in content if "tests" in Path(path).parts or Path(path).name == "conftest.py"]
    named = (
        "testing.py",
        "self_test.py",
        "pytest_plugin.py",
        "pytest_session.py",
        "pytest_workers.py",
        "board_under_test.py",
    )
    assert not [path for path in content if "test" in Path(path).name and Path(path).name not in named]


def test_licence_and_metadata(wheel, content):
    (licence,) = (path for path in content if path.endswith(".dist-info/licenses/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert "Apache License" in archive.read(licence).decode()
        metadata = archive.read(licence.replace("licenses/LICENSE", "METADATA")).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    for extra in ("onnx", "openvino", "tflite", "gpu", "convert", "train", "dicom", "fleet", "all", "dev"):
        assert f"\nProvides-Extra: {extra}\n" in metadata


def test_size(wheel):
    assert wheel.stat().st_size < LARGEST_WHEEL_BYTES


def test_the_sdist_has_what_a_build_needs_and_no_link(distributions):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    inside = {member.name.partition("/")[2] for member in members}
    assert {"pyproject.toml", "README.md", "LICENSE", "boards/__init__.py", "runtimes/__init__.py"} <= inside
    assert not [member.name for member in members if member.issym() or member.islnk()]
