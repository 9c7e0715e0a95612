"""openvino model_api's SegmentationModel as a peer: its environment, and a process that calls it when asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

import numpy as np
from peers import HERE, PeerFailed
from peers import install as install_peer

from edgeseg.types import Array

REQUIREMENTS = HERE / "requirements-model-api.txt"


def install(work: Path) -> Path:
    """Make `.venv-model-api` in the work folder; its python. Raises PeerFailed with the last lines of pip."""
    work.mkdir(parents=True, exist_ok=True)
    return install_peer(work, REQUIREMENTS, ".venv-model-api")


class ModelApi:
    """A process with the model in it; a context manager.

    Args:
        python: of its environment.
        model: an OpenVINO .xml of three channels and two logits or more.
        frame: [H, W, 3] uint8, what every call is made with.
        work: where the frame is handed over.

    Raises:
        PeerFailed: it does not start, or its mask does not have the frame's size.
    """

    def __init__(self, python: Path, model: Path, frame: Array, work: Path) -> None:
        handed = work.resolve() / "frame.npy"
        np.save(handed, frame)
        command = [str(python), str(HERE / "model_api_speed.py"), str(model), str(handed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        found = self._answer()
        if tuple(found["shape"]) != frame.shape[:2]:
            self.close()
            raise PeerFailed(f"model_api gave a mask of {found['shape']}, the frame is {frame.shape}")
        self.foreground: float = found["foreground"]

    def turn(self, count: int) -> list[float]:
        """Make so many calls; the seconds of each."""
        assert self._process.stdin
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        seconds: list[float] = self._answer()
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise PeerFailed("model_api ended: run tools/peers/model_api_speed.py by hand to see why")
        return json.loads(line)
