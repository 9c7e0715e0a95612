"""The first process of an emulated board: mounts its root, starts its sshd and buries its dead.

It is run by path inside new namespaces, before anything of edgeseg can be imported there: the standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_EMPTY = ("tmp", "run")


def main(config_path: str) -> None:
    """Become the board that the file describes; returns when its sshd ends."""
    config = json.loads(Path(config_path).read_text(encoding="utf-8"))
    root = Path(config["root"])
    _mount_root(config, root)
    _mount_system(root, Path(config["folder"]))
    _mount_disk(config, root)
    socket.sethostname(config["name"])
    if config["prlimit_bytes"]:
        resource.setrlimit(resource.RLIMIT_DATA, (config["prlimit_bytes"],) * 2)
    os.chroot(root)
    os.chdir("/")
    # Not earlier: from outside, a link on the way to one of these could lead to the host's files.
    for path in map(Path, config["hidden"]):
        _remove(path)
    for name, content in config["files"].items():
        _write_file(Path(name), content)
    sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/edgeseg_sshd"], env={"PATH": os.defpath})
    # As process 1 it is the parent of every orphan on the board.
    while os.wait()[0] != sshd.pid:
        pass


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


def _overlay(lower: Path, layer: Path, place: Path) -> None:
    for name in ("upper", "work"):
        (layer / name).mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lower},upperdir={layer / 'upper'},workdir={layer / 'work'}"
    _mount("-t", "overlay", "-o", options, "overlay", place)


def _mount_root(config: dict[str, object], root: Path) -> None:
    folder = Path(str(config["folder"]))
    _mount("--make-rprivate", "/")
    _overlay(Path("/"), folder / "layers" / "root", root)
    for name in _EMPTY:
        _mount("-t", "tmpfs", "-o", "mode=1777,size=64m", "tmpfs", root / name)
    for number, kept in enumerate(map(Path, config["kept"])):  # type: ignore[call-overload]
        place = root / kept.relative_to("/")
        place.mkdir(parents=True, exist_ok=True)
        _overlay(kept, folder / "layers" / str(number), place)
    (root / "run/sshd").mkdir()


def _mount_system(root: Path, folder: Path) -> None:
    _mount("-t", "proc", "proc", root / "proc")
    _mount("-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
    _mount("--rbind", "/sys/fs/cgroup", root / "sys/fs/cgroup")
    _mount("-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", root / "dev")
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _mount("--bind", Path("/dev") / name, root / "dev" / name)
    for name in ("pts", "shm"):
        (root / "dev" / name).mkdir()
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", root / "dev/pts")
    _mount("-t", "tmpfs", "-o", "mode=1777,size=64m", "tmpfs", root / "dev/shm")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1")):
        (root / "dev" / name).symlink_to(target)
    boot_id = folder / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    _mount("--bind", boot_id, root / "proc/sys/kernel/random/boot_id")


def _mount_disk(config: dict[str, object], root: Path) -> None:
    place = root / "data"
    place.mkdir(exist_ok=True)
    if config["disk"]:
        _mount("-o", "loop", str(config["disk"]), place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_file(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600 if path.name.endswith("_key") else 0o644)


if __name__ == "__main__":
    main(sys.argv[1])
