"""docs/boards.md says what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edgeseg.boards import profile_check
from edgeseg.boards.profile import decode_profile, profiles
from edgeseg.engine_options import OPTIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "boards.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return found


def test_the_example_is_a_profile() -> None:
    assert decode_profile(block("toml"), "docs/boards.md").name == "acme-cart"


def test_every_word_of_a_profile_is_listed() -> None:
    options = [name for known in OPTIONS.values() for name in known]
    for name in (*options, *profile_check.FIGURES, *profile_check.LIMITS):
        assert f"`{name}`" in TEXT, name


def test_every_finding_is_listed() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "boards").glob("checks_*.py"))
    codes = set(re.findall(r"Finding\(\s*f?\"([a-z{}-]+)\"", sources))
    assert len(codes) >= 17
    for code in codes:
        for kind in ("gpu", "npu") if "{kind}" in code else ("",):
            assert f"`{code.replace('{kind}', kind)}`" in TEXT, code


def test_the_number_of_trees_is_right() -> None:
    trees = list((Path(__file__).parent / "trees").glob("*.toml"))
    assert f"The tests hold {len(trees)} trees" in TEXT
    assert len(profiles()) >= 20


def test_the_sampler_example_runs() -> None:
    code = block("python").replace("sleep(1)", "sleep(0.2)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 1


def test_the_cost_of_telemetry_is_measured() -> None:
    command = [sys.executable, ROOT / "tools" / "telemetry_cost.py", "--seconds", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[2:]
    assert [row.split("  ")[0] for row in rows] == ["this machine", "Jetson, 12 cores", "PC, 24 cores"]
    assert all(row.endswith("% core") for row in rows)
