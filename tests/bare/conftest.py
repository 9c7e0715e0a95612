"""The wheel, built as it is published, and virtual environments that hold nothing but it and one extra."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.metrics import dice
from edgeseg.types import Format

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", "build", "dist", "demo", "runs", "*.egg-info", ".*_cache")


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment without pip, whose commands run outside the repository."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    def run(self, *command: str | Path, expect: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; the exit code must be the expected one."""
        program = self.path / "bin" / command[0]
        return call(program, *command[1:], cwd=cwd or self.path, expect=expect)

    def pip(self, *arguments: str | Path) -> str:
        """pip of the running environment, acting on this one."""
        command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python)
        return call(*command, *arguments, cwd=self.path).stdout

    def installed(self) -> set[str]:
        """Names of all distributions, lower case with hyphens."""
        code = "from importlib.metadata import distributions as d; print(*(x.metadata['Name'] for x in d()))"
        return {name.lower().replace("_", "-") for name in self.run("python", "-c", code).stdout.split()}


@dataclass(frozen=True, slots=True)
class Device:
    """An environment with one extra, the runtime that it brings, and the runtimes that it lacks by their extras."""

    extra: str
    runtime: str
    format: Format
    lacks: dict[str, str]
    environment: Environment


ENGINES = {
    "onnx": ("onnxruntime", Format.ONNX),
    "openvino": ("openvino", Format.OPENVINO),
    "tflite": ("litert", Format.TFLITE),
}


def call(*command: str | Path, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, f"{command} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    # A copy, because setuptools writes build/ and *.egg-info into the tree, and would pack what an earlier build left.
    # Compiled, as a tree in use is: none of that may get into the wheel.
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=NOT_SOURCE)
    compileall.compile_dir(source / "edgeseg" / "samples", quiet=1)
    call(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    shutil.rmtree(source)
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The wheel with what it cannot do without."""
    yield from environment(str(wheel), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session", params=list(ENGINES))
def device(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """The wheel with one engine."""
    extra = request.param
    for made in environment(f"{wheel}[{extra}]", tmp_path_factory.mktemp(extra)):
        lacks = {other: runtime for other, (runtime, _) in ENGINES.items() if other != extra}
        yield Device(extra, *ENGINES[extra], lacks, made)


def environment(requirement: str, folder: Path) -> Iterator[Environment]:
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    made = Environment(folder / "venv")
    made.pip("install", "--quiet", "--no-compile", requirement)
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def picture(frames: Path) -> Path:
    """A held-out frame, PNG."""
    return frames / "images" / "036.png"


@pytest.fixture(scope="session")
def assert_found(frames: Path, picture: Path) -> Callable[[Path], None]:
    """Fail unless a mask file is nearly the reference mask of the picture."""
    reference = cv2.imread(str(frames / "masks" / picture.name), cv2.IMREAD_UNCHANGED) > 0

    def check(file: Path) -> None:
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.shape == reference.shape
        assert dice(mask, reference.astype(np.uint8)) > 0.85

    return check
