"""A full disk and a read-only one, both real: a small tmpfs in a mount namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg import open_bundle
from edgeseg.signing import sign_bundle
from edgeseg.transport import pack

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
SCRIPT = """
import json, shutil, subprocess, sys
from pathlib import Path
from edgeseg import EdgesegError, open_bundle
from edgeseg.install import install
from edgeseg.keys import new_key
from edgeseg.signing import sign_bundle
from edgeseg.transport import pack, unpack

source, key, disk = map(Path, sys.argv[1:4])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=True)
there = disk / "head.edgeseg"
shutil.copytree(source, there)
if sys.argv[4] == "full":
    with (disk / "ballast").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            pass
else:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
acts = {
    "open": lambda: open_bundle(there, trusted_keys=key),
    "sign": lambda: sign_bundle(there, key.with_suffix(".key")),
    "pack": lambda: pack(open_bundle(source), disk / "head.tar.xz"),
    "unpack": lambda: unpack(source.parent / "head.tar.xz", disk / "new.edgeseg"),
    "install": lambda: install(source, disk / "new.edgeseg", trusted_keys=key),
    "install over": lambda: install(source, there, trusted_keys=key),
    "keys": lambda: new_key("other", disk),
}
said = {}
for name, act in acts.items():
    try:
        act()
        said[name] = ""
    except EdgesegError as error:
        said[name] = f"{type(error).__name__}: {error}"
    open_bundle(there, trusted_keys=key)
said["left"] = sorted(p.name for p in disk.iterdir())
print(json.dumps(said))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder to mount on; skips where namespaces are not allowed, as in some containers."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a user mount a disk in a namespace of its own")
    return folder


@pytest.mark.parametrize(
    ("state", "reason"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_what_cannot_be_written_is_one_error_and_nothing_is_lost(
    signed: Path, key: Path, disk: Path, state: str, reason: str
) -> None:
    pack(open_bundle(signed), signed.parent / "head.tar.xz")
    command = [*NAMESPACE, sys.executable, "-c", SCRIPT, str(signed), str(key), str(disk), state]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said.pop("open") == ""
    assert said.pop("left") == (["ballast"] if state == "full" else []) + ["head.edgeseg"]
    assert "MB free" in said["unpack"] or reason in said["unpack"]
    for name, line in said.items():
        assert line.startswith("BundleError: "), (name, line)
        assert reason in line or name == "unpack", (name, line)
        assert "\n" not in line


def test_signing_needs_no_more_of_the_disk_than_it_leaves(signed: Path, key: Path) -> None:
    for _ in range(3):
        sign_bundle(signed, key.with_suffix(".key"))
    assert sorted(p.name for p in signed.parent.iterdir()) == ["head.edgeseg", "keys"]
