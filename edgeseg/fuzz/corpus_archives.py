"""Hostile weights and exported programs: archives that inflate, and pickles that would run a command."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeseg.fuzz.corpus import IDENTITY, Case, Scene, convert
from edgeseg.fuzz.fields_media import encode_npy

_MIB = 1 << 20
_BOMB_MIB = 4096


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._canary),)


def touching_pickle(canary: Path) -> bytes:
    """A pickle that makes the folder `canary` when it is read."""
    return pickle.dumps({"weight": _Touch(canary)}, protocol=2)


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _bomb(name: str, head: bytes = b"") -> bytes:
    """An archive of a few MB whose one member has 4 GB of zeros behind `head`."""
    out = io.BytesIO()
    archive = zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open(name, "w", force_zip64=True) as member:
        member.write(head)
        for _ in range(_BOMB_MIB // 16):
            member.write(bytes(16 * _MIB))
    return out.getvalue()


def _npy_bomb() -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({_BOMB_MIB * _MIB},)}}\n"
    return _bomb("weight.npy", encode_npy(header, b""))


def _many_bombs() -> bytes:
    """Many members, none of which is large by itself."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index in range(64):
            archive.writestr(f"p/data/weights/w{index}", bytes(64 * _MIB))
    return out.getvalue()


def _object_array(canary: Path) -> bytes:
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n"
    return _zip({"weight.npy": encode_npy(header, touching_pickle(canary))})


def _exported(program: dict[str, Any], **members: bytes) -> bytes:
    """A torch.export archive by its layout; its program is no sound one."""
    files = {"p/archive_format": b"pt2", "p/archive_version": b"0", "p/models/model.json": json.dumps(program).encode()}
    return _zip(files | {f"p/{name.replace('__', '/')}": data for name, data in members.items()})


def _calling(target: str) -> dict[str, Any]:
    node = {"target": target, "inputs": [{"name": "x", "arg": {"as_string": "true"}}], "outputs": [], "metadata": {}}
    return {"graph_module": {"graph": {"nodes": [node]}}, "schema_version": {"major": 8, "minor": 1}}


def _safetensors(header: bytes, data: bytes = bytes(16), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _weights(name: str, data: Callable[[Scene], bytes]) -> Callable[[Scene], list[str]]:
    return lambda scene: convert(scene, IDENTITY, "--weights", str(scene.file(name, data(scene))))


def _source(name: str, data: Callable[[Scene], bytes]) -> Callable[[Scene], list[str]]:
    return lambda scene: convert(scene, scene.file(name, data(scene)))


def _device(scene: Scene, name: str) -> Path:
    path = scene.folder / name
    path.symlink_to("/dev/zero")
    return path


def _fifo(scene: Scene, name: str) -> Path:
    path = scene.folder / name
    os.mkfifo(path)
    return path


_HUGE = {"w": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 16]}}
_DEEP = b'{"__metadata__": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"

CASES = (
    Case("npz that inflates to 4 GB", "memory", _weights("w.npz", lambda s: _npy_bomb()), 60),
    Case("npz with a pickle", "code", _weights("w.npz", lambda s: _object_array(s.canary)), 60),
    Case(
        "pth that inflates to 4 GB", "memory", _weights("w.pth", lambda s: _bomb("w/data.pkl", b"\x80\x02}q\x00.")), 60
    ),
    Case("pth that runs a command", "code", _weights("w.pth", lambda s: touching_pickle(s.canary)), 60),
    Case(
        "pth archive that runs a command",
        "code",
        _weights("w.pth", lambda s: _zip({"w/data.pkl": touching_pickle(s.canary), "w/version": b"3"})),
        60,
    ),
    Case("pth that is /dev/zero", "endless", lambda s: convert(s, IDENTITY, "--weights", str(_device(s, "w.pth"))), 60),
    Case("pt2 that inflates to 4 GB", "memory", _source("m.pt2", lambda s: _bomb("p/models/model.json")), 60),
    Case("pt2 of many members that inflate to 4 GB", "memory", _source("m.pt2", lambda s: _many_bombs()), 60),
    Case(
        "pt2 with a pickle",
        "code",
        _source(
            "m.pt2",
            lambda s: _exported({}, data__weights__w0=b"", data__constants__custom_obj_0=touching_pickle(s.canary)),
        ),
        60,
    ),
    Case(
        "pt2 with a pickle of weights",
        "code",
        _source(
            "m.pt2",
            lambda s: _exported({}, data__weights__weights_pt=touching_pickle(s.canary)).replace(
                b"weights_pt", b"weights.pt"
            ),
        ),
        60,
    ),
    Case("pt2 that calls the system", "code", _source("m.pt2", lambda s: _exported(_calling("torch.os.system"))), 60),
    Case("pt2 that is /dev/zero", "endless", lambda s: convert(s, _device(s, "m.pt2")), 60),
    Case(
        "safetensors with a header of 2^60 bytes",
        "memory",
        _source("m.safetensors", lambda s: _safetensors(b"{}", length=2**60)),
        60,
    ),
    Case(
        "safetensors with a tensor of 2^60 numbers",
        "memory",
        _source("m.safetensors", lambda s: _safetensors(json.dumps(_HUGE).encode())),
        60,
    ),
    Case(
        "safetensors with a million brackets", "recursion", _source("m.safetensors", lambda s: _safetensors(_DEEP)), 60
    ),
    Case("safetensors that is a pipe", "hang", lambda s: convert(s, _fifo(s, "m.safetensors")), 60),
)
