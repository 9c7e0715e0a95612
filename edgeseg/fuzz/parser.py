"""A process that gives edgeseg's own readers what nobody checked: python -m edgeseg.fuzz.parser KIND FOLDER MEMORY_MB.

Standard input brings contents, each behind its length in eight bytes; each is answered by one line: "typed error", "a
result", or "untyped error" and what it was.
"""

from __future__ import annotations

import json
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from edgeseg.bundle import file_record
from edgeseg.errors import EdgesegError
from edgeseg.fuzz.mutations import Kind
from edgeseg.golden import read_logits
from edgeseg.images import decode_image
from edgeseg.manifest import check_names, decode_manifest, records, seal
from edgeseg.runtimes.sandbox import limit_memory
from edgeseg.transport import extract
from edgeseg.trust import parse_signatures
from edgeseg.types import Golden

Reader = Callable[[bytes, Path], object]


def _manifest(data: bytes, folder: Path) -> None:
    manifest = decode_manifest(_sealed(data))
    check_names(manifest)
    list(records(manifest))


def _sealed(data: bytes) -> bytes:
    """The content with the digest it must have, where it is JSON that can have one."""
    try:
        content = json.loads(data)
        return seal(content) if isinstance(content, dict) else data
    except (ValueError, RecursionError):
        return data


def _logits(data: bytes, folder: Path) -> None:
    path = folder / "logits.npy"
    path.write_bytes(data)
    record = file_record(path, folder)
    record = type(record)(path, record.sha256, record.size_bytes)
    read_logits(Golden(record, record, record))


def _transport(data: bytes, folder: Path) -> None:
    path, target = folder / "bundle.tar.xz", folder / "unpacked"
    path.write_bytes(data)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    extract(path, target, None)


READERS: dict[Kind, Reader] = {
    Kind.MANIFEST: _manifest,
    Kind.SIGNATURE: lambda data, folder: parse_signatures(_sealed(data)),
    Kind.PNG: lambda data, folder: decode_image(data, "golden.png"),
    Kind.NPY: _logits,
    Kind.TRANSPORT: _transport,
}


def main() -> None:
    """Serve until standard input ends."""
    read, folder = READERS[Kind(sys.argv[1])], Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory(int(sys.argv[3]))
    while head := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(struct.unpack("<Q", head)[0])
        print(_answer(read, data, folder), flush=True)


def _answer(read: Reader, data: bytes, folder: Path) -> str:
    try:
        read(data, folder)
    except EdgesegError:
        return "typed error"
    except Exception as error:
        return " ".join(f"untyped error: {type(error).__name__}: {error}".split())
    return "a result"


if __name__ == "__main__":
    main()
