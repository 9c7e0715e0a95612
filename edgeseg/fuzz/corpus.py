"""The hostile corpus: files made to escape, to hang or to take all memory, and how each of them is fed to edgeseg."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.bundle import file_record
from edgeseg.manifest import MANIFEST, SIGNATURE, seal
from edgeseg.types import Bundle, Format

SECRET = "the content of a file that is nobody's business"
# A sound source that needs no code of anybody: what is hostile is its weights or frames.
IDENTITY = "torch.nn:Identity"
LONG_SECRET = (SECRET + "\n") * 4096


@dataclass(frozen=True, slots=True)
class Scene:
    """What a case is made in.

    Attributes:
        folder: empty, for its files.
        bundle: a sound one, signed; read only.
        image: a sound picture, read only.
        frames: a sound folder of frames, read only.
        secret: a file outside `folder` that no attack may read; its content is LONG_SECRET.
        canary: a path outside `folder` at which nothing may appear.
        out: where commands write to.
    """

    folder: Path
    bundle: Bundle
    image: Path
    frames: Path
    secret: Path
    canary: Path
    out: Path

    def file(self, name: str, data: bytes) -> Path:
        """Write a file of the case."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


@dataclass(frozen=True, slots=True)
class Case:
    """One attack.

    Attributes:
        name: of the case.
        attacks: what it tries.
        make: writes the files and returns the arguments of `edgeseg`.
        deadline_s: after so long edgeseg must have ended.
        harmless: the command may also succeed, because what is hostile in the file is nothing it needs.
    """

    name: str
    attacks: str
    make: Callable[[Scene], list[str]]
    deadline_s: float = 30.0
    harmless: bool = False

    @property
    def group(self) -> str:
        """What kind of file it is, from its name."""
        return self.name.partition(" ")[0]


def run(scene: Scene, source: Path) -> list[str]:
    """A hostile INPUT."""
    return ["run", str(scene.bundle.path), str(source), "-o", str(scene.out), "--runtime", "onnxruntime"]


def convert(scene: Scene, source: str | Path, *options: str) -> list[str]:
    """A hostile SOURCE, calibrated with sound frames."""
    frames = ("--calibration", str(scene.frames)) if "--calibration" not in options else ()
    return ["convert", str(source), *frames, "-o", str(scene.out), *options]


def hostile_bundle(
    scene: Scene,
    files: dict[str, bytes] | None = None,
    *,
    only: Format | None = None,
    change: Callable[[dict[str, Any]], object] = lambda content: None,
    spoil: Callable[[Path], object] = lambda folder: None,
) -> Path:
    """A copy of the sound bundle by somebody who can set every hash right, but has no key.

    Args:
        scene: where to.
        files: other contents, by path inside the bundle.
        only: keep the first artifact of a format, and no other.
        change: made to the JSON of the manifest, after the hashes are set.
        spoil: made to the folder in the end.
    """
    folder = scene.folder / "hostile.edgeseg"
    shutil.copytree(scene.bundle.path, folder)
    (folder / SIGNATURE).unlink(missing_ok=True)
    content = json.loads((folder / MANIFEST).read_bytes())
    if only is not None:
        kept = next(a for a in content["artifacts"] if a["format"] == only)
        dropped = [a for a in content["artifacts"] if a is not kept]
        content["artifacts"] = [kept]
        for record in (r for a in dropped for r in a["files"]):
            (folder / record["path"]).unlink()
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    for record in _records(content):
        record |= {k: v for k, v in _described(folder, record["path"]).items() if k != "path"}
    change(content)
    (folder / MANIFEST).write_bytes(seal(content))
    spoil(folder)
    return folder


def _records(content: dict[str, Any]) -> list[dict[str, Any]]:
    artifacts = [r for a in content["artifacts"] for r in a["files"]]
    return artifacts + [g[part] for g in content["golden"] for part in ("frame", "mask", "logits")]


def _described(folder: Path, name: str) -> dict[str, Any]:
    record = file_record(folder / name, folder)
    return {"path": record.path.as_posix(), "sha256": record.sha256, "size_bytes": record.size_bytes}


def artifact(scene: Scene, format: Format) -> tuple[str, ...]:
    """The paths inside the bundle of the first artifact of a format."""
    found = next(a for a in scene.bundle.artifacts if a.format is format)
    return tuple(f.path.relative_to(scene.bundle.path).as_posix() for f in found.files)
