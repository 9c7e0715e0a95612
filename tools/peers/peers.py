"""The peers: their environment, and the models that they make of a bundle's fp32 ONNX."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.dataset import FrameFolder
from edgeseg.errors import EdgesegError
from edgeseg.preprocess import to_input
from edgeseg.types import Preprocess

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
_STAMP = "installed"
_LINES = 3


class PeerFailed(EdgesegError):
    """A peer could not be installed, or did not make its model."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way in which another tool makes int8.

    Attributes:
        name: as in `olive`.
        script: run in the peers' environment with model, frames and output.
        suffix: of the output.
        runtime: edgeseg's name of the engine that the result is for.
        what: the recipe in words.
        default: whether that is what the tool does when nothing is set.
        options: set against the tool's default.
    """

    name: str
    script: str
    suffix: str
    runtime: str
    what: str
    default: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


PEERS = (
    Peer(
        "olive",
        "olive_int8.py",
        ".onnx",
        "onnxruntime",
        "OnnxStaticQuantization, all defaults (QDQ, signed activations and weights, per tensor)",
    ),
    Peer(
        "olive-cli",
        "olive_int8.py",
        ".onnx",
        "onnxruntime",
        "the same as `olive quantize --implementation ort` sets it (QOperator)",
        options={"quant_format": "QOperator"},
    ),
    Peer(
        "olive-u8",
        "olive_int8.py",
        ".onnx",
        "onnxruntime",
        "not a default: unsigned activations and per-channel weights set by hand",
        default=False,
        options={"activation_type": "uint8", "per_channel": True},
    ),
    Peer("nncf", "nncf_int8.py", ".xml", "openvino", "nncf.quantize(model, dataset), all defaults"),
)


def install(work: Path, requirements: Path = REQUIREMENTS, name: str = ".venv-peers") -> Path:
    """Make an environment in the work folder, or bring it to the requirements; its python.

    Raises:
        PeerFailed: with the last lines of pip.
    """
    environment = work.resolve() / name
    python, stamp = environment / "bin" / "python", environment / _STAMP
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    if not python.is_file():
        _call("make an environment", [sys.executable, "-m", "venv", str(environment)])
    _call(
        "install the peers",
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", "-r", str(requirements)],
    )
    stamp.write_text(wanted)
    return python


def write_frames(folder: FrameFolder, preprocess: Preprocess, name: str, work: Path) -> Path:
    """Every frame as the network gets it, raw float32 [1, C, H, W]: the calibration that all sides share."""
    frames = work / "frames"
    shutil.rmtree(frames, ignore_errors=True)
    (frames / name).mkdir(parents=True)
    for index, sample in enumerate(folder.samples):
        pixels = to_input(sample.read_frame(), preprocess)
        (frames / name / f"{index:04d}.bin").write_bytes(pixels.astype(np.float32).tobytes())
    return frames


def make(peer: Peer, python: Path, model: Path, frames: Path, work: Path) -> Path:
    """The peer's int8 of a model; raises PeerFailed with the last lines it said."""
    out = work / f"{peer.name}-int8{peer.suffix}"
    out.unlink(missing_ok=True)
    arguments = [str(model), str(frames), str(out), *([json.dumps(dict(peer.options))] if peer.options else [])]
    _call(f"quantize by {peer.name}", [str(python), str(HERE / peer.script), *arguments])
    if not out.is_file():
        raise PeerFailed(f"{peer.name} ended without {out.name}: run {peer.script} by hand")
    return out


def versions(python: Path) -> dict[str, str]:
    """What is installed, of the requirements."""
    installed = _call("list the peers", [str(python), "-m", "pip", "freeze"]).splitlines()
    names = {re.split("[=<>]", line)[0] for line in REQUIREMENTS.read_text().splitlines()}
    return {name: version for name, _, version in (line.partition("==") for line in installed) if name in names}


def _call(what: str, command: Sequence[str]) -> str:
    # Without the variables that would point one environment's python at another's packages.
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-_LINES:])
        raise PeerFailed(f"could not {what} (exit {done.returncode}): {said}")
    return done.stdout
