from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgeseg.boards.profile import profiles


def boards(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeseg.cli", "boards", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_list_has_every_board() -> None:
    done = boards("list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(profiles())


def test_show_marks_what_is_not_verified() -> None:
    done = boards("show", "jetson-orin-nano")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "102 GB/s" in lines["memory_bandwidth"]
    assert " yes " in lines["memory_bandwidth"]
    assert "https://" in lines["memory_bandwidth"]
    assert "33 TOPS" in lines["int8_dense"]
    assert " no " in lines["int8_dense"]


def test_show_of_an_unknown_board() -> None:
    done = boards("show", "abacus")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_detect_writes_json(tmp_path: Path) -> None:
    done = boards("detect", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["schema"] == 1
    assert done.stdout.splitlines()[0] == found["description"]
    assert found["profile"] in profiles()
    assert "cannot be written" in boards("detect", "--json", tmp_path / "none" / "b.json").stderr


def test_show_says_everything_a_profile_holds() -> None:
    text = boards("show", "jetson-orin-nano").stdout
    for said in ("MAXN_SUPER", "tensorrt_workspace_mb=1024", "fp16 int8 fp32", "limit", "NVIDIA's Orin Nano datasheet"):
        assert said in text


def test_a_refused_board_says_why() -> None:
    done = boards("show", "intel-ncs2")
    assert done.returncode == 1
    assert "2023.0" in done.stderr
    assert done.stderr.count("\n") == 1
    (line,) = (line for line in boards("list").stdout.splitlines() if line.startswith("intel-ncs2"))
    assert "refused" in line


def test_profiles_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "acme-cart.toml").write_text("name = 'acme-cart'\ntitle = 'The cart'\n")
    assert boards("list", "--profiles", tmp_path).stdout.splitlines()[1].startswith("acme-cart")
    assert boards("show", "acme-cart", "--profiles", tmp_path).stdout.startswith("The cart (acme-cart")


def test_a_wrong_unit_names_file_key_and_what_was_expected(tmp_path: Path) -> None:
    text = "name = 'cart'\ntitle = 'x'\n[figures.memory_bandwidth]\nvalue = 3\nunit = 'GB'\n"
    (tmp_path / "cart.toml").write_text(text)
    for command in (("list",), ("show", "cart"), ("detect",)):
        done = boards(*command, "--profiles", tmp_path)
        assert done.returncode == 1
        assert "cart.toml is not a valid board profile" in done.stderr
        assert "figures.memory_bandwidth has the unit 'GB', expected GB/s" in done.stderr
        assert done.stderr.count("\n") == 1


def test_detect_tells_what_can_be_read_now(tmp_path: Path) -> None:
    done = boards("detect", "--json", tmp_path / "b.json")
    reading = json.loads((tmp_path / "b.json").read_text())["reading"]
    assert reading["memory_available_bytes"] > 0
    assert reading["power_mw"] is None or reading["power_mw"] > 0
    assert "GiB free" in done.stdout
