"""Trees of boards, unpacked where a test wants them. Each is one file of tests/boards/trees."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

TREES = Path(__file__).parent / "trees"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "board_name" in metafunc.fixturenames:
        metafunc.parametrize("board_name", sorted(path.stem for path in TREES.glob("*.toml")))


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Write files below a root folder, and give the folder."""
    root = tmp_path / "root"
    root.mkdir()
    return lambda files: write(root, files)


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[str], Path]:
    """Unpack the tree of a board into a new folder, and give it."""
    return lambda name: unpacked(name, Path(tempfile.mkdtemp(prefix=name, dir=tmp_path)))


@pytest.fixture
def described() -> Callable[[str], dict]:
    """What the file of a tree says."""
    return lambda name: tomllib.loads((TREES / f"{name}.toml").read_text())


def unpacked(name: str, root: Path) -> Path:
    tree = tomllib.loads((TREES / f"{name}.toml").read_text())
    write(root, tree["files"])
    for link, target in tree.get("links", {}).items():
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(target)
    cores = [group["lines"].strip("\n") for group in tree["cpuinfo"] for _ in range(group["count"])]
    blocks = [f"processor\t: {number}\n{lines}\n" for number, lines in enumerate(cores)]
    blocks += [tree["cpuinfo_end"] + "\n"] if "cpuinfo_end" in tree else []
    available = tree["memory_kb"] // 2
    meminfo = f"MemTotal:       {tree['memory_kb']} kB\nMemFree:          1 kB\nMemAvailable:   {available} kB\n"
    return write(root, {"proc/cpuinfo": "\n".join(blocks), "proc/meminfo": meminfo, "proc/loadavg": "0.5 0 0 1/2 3\n"})
