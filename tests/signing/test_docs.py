"""docs/security.md: its example checks a real signature without edgeseg, and refuses a forged one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def check(signed: Path, key: Path, tmp_path: Path) -> Callable[[], int]:
    """Run the example beside the bundle's two files and the public key."""
    blocks = re.findall(r"```python\n(.+?)```", (DOCS / "security.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "rfc8785" in block)
    assert "edgeseg" not in code

    def run() -> int:
        place = tmp_path / "elsewhere"
        place.mkdir(exist_ok=True)
        for file in (signed / "manifest.json", signed / "signature.json", key):
            shutil.copy(file, place)
        command = [sys.executable, "-I", "-c", code]
        return subprocess.run(command, cwd=place, capture_output=True, check=False).returncode

    return run


def test_the_example_checks_a_signature(check: Callable[[], int], signed: Path, rename: Callable[[Path], None]) -> None:
    assert check() == 0
    rename(signed)
    assert check() != 0


def test_links_to_files_that_are_there() -> None:
    for name in re.findall(r"\]\(([\w./-]+)\)", (DOCS / "security.md").read_text()):
        assert (DOCS / name).is_file()
