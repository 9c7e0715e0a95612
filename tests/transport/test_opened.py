"""Opening the one-file form itself: a private folder that lives as long as the process and no longer."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg import BundleError, open_bundle
from edgeseg.transport import is_packed, pack
from edgeseg.types import Bundle

MakeBundle = Callable[..., Bundle]
Content = Callable[[Path], dict[str, bytes]]


def test_the_file_opens_like_the_folder(sound: Bundle, packed: Path, temporary: Path, content: Content) -> None:
    opened = open_bundle(packed)
    assert [replace(a, files=()) for a in opened.artifacts] == [replace(a, files=()) for a in sound.artifacts]
    assert content(opened.path) == content(sound.path)
    (private,) = temporary.iterdir()
    assert opened.path.is_relative_to(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert is_packed(packed)
    assert not is_packed(sound.path)


def test_opened_again_it_is_checked_again_but_not_unpacked_again(
    packed: Path, temporary: Path, make_bundle: MakeBundle
) -> None:
    first = open_bundle(packed)
    assert open_bundle(str(packed)).path == first.path
    assert len(list(temporary.iterdir())) == 1
    first.artifacts[0].path.write_bytes(b"x" * first.artifacts[0].size_bytes)
    with pytest.raises(BundleError, match="does not have the SHA-256"):
        open_bundle(packed)
    pack(make_bundle("next", b"new", b"", b"", b"", b""), packed)
    assert open_bundle(packed).artifacts[0].path.read_bytes() == b"new"


CHILD = """
import os, sys, edgeseg
bundle = edgeseg.open_bundle(sys.argv[1])
if sys.argv[2] == "fork" and os.fork() == 0:
    sys.exit(0)
if sys.argv[2] == "fork":
    os.wait()
print(bundle.path, bundle.artifacts[0].path.is_file(), flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


def opened_by_a_child(packed: Path, how: str, folder: Path) -> tuple[Path, bool]:
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(packed), how], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == (-9 if how == "killed" else 0), done.stderr
    path, there = done.stdout.split()
    return Path(path), there == "True"


@pytest.mark.parametrize("how", ["normal", "fork"])
def test_the_private_folder_goes_with_its_process_and_no_sooner(packed: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "tmp").mkdir()
    path, there = opened_by_a_child(packed, how, tmp_path / "tmp")
    assert there
    assert not path.exists()
    assert not list((tmp_path / "tmp").iterdir())


def test_what_a_killed_process_left_goes_but_nothing_of_a_living_one(
    packed: Path, temporary: Path, held: Callable[[Path], None]
) -> None:
    killed = opened_by_a_child(packed, "killed", temporary)[0].parent
    assert killed.exists()
    alive, young, other = (temporary / f"edgeseg-{n}.opened" for n in ("alive", "young", "other"))
    for folder in (alive, young):
        folder.mkdir()
    other.symlink_to(alive)
    held(alive)
    for folder in (killed, alive):
        os.utime(folder, (0, 0))
    open_bundle(packed)
    assert not killed.exists()
    assert alive.exists()
    assert young.exists()
    assert other.is_symlink()


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    descriptors: list[int] = []

    def hold(folder: Path) -> None:
        descriptors.append(os.open(folder, os.O_RDONLY))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX)

    yield hold
    for descriptor in descriptors:
        os.close(descriptor)
