"""docs/lab-*.md: their commands and files are understood by what they are for, and followed on an emulated board."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from edgeseg import __version__
from edgeseg.boards.detect import detect
from edgeseg.boards.doctor import examine
from edgeseg.boards.findings import Machine, Process
from edgeseg.boards.hil.environment import read_environment
from edgeseg.boards.profile import profile, profiles
from edgeseg.boards.telemetry import Telemetry
from edgeseg.cli import COMMANDS, main
from edgeseg.commands import boards

from ..boards.conftest import unpacked
from ..command_lines import check_command_line
from .conftest import events
from .guides import FOLLOWED, GUIDES, NOT_VERIFIED, OUTPUT, ROOT, Lab, read_guide, sections

TREES = {"n100-1": "intel-n100", "orin-1": "jetson-orin-nano-devkit"}
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "ai-edge-litert"}
USER = Process(
    uid=4242,
    gids=frozenset({4242}),
    rtprio=0,
    memlock_bytes=8192 << 10,
    capabilities=0,
    libc="glibc 2.39",
    packages={},
    now=1.79e9,
    user="edgeseg",
)


@pytest.fixture(params=GUIDES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def guide(name: str) -> Path:
    return GUIDES[name]


@pytest.fixture
def tree(name: str, tmp_path: Path) -> Path:
    return unpacked(TREES[name], tmp_path / "tree")


def shown(guide: Path, tool: str) -> Iterator[str]:
    """Texts of the files that the guide has written below /etc, by a word of their path."""
    for block in read_guide(guide):
        yield from re.findall(rf"^sudo tee \S*{tool}\S* <<'END'\n(.*?)^END$", block.text, re.DOTALL | re.MULTILINE)


def test_every_block_says_what_stands_behind_it(guide: Path) -> None:
    text = guide.read_text()
    found = read_guide(guide)
    assert len(found) >= 20
    assert len(found) == text.count("\n```") / 2, "a block without its line, or with a mark that the legend has not"
    for block in found:
        assert block.note or block.mark == FOLLOWED, f"{block.mark}, and why or by what: {block.text}"
    for mark in (FOLLOWED, NOT_VERIFIED):
        assert sum(block.mark == mark for block in found) >= 4
    for title, body in sections(guide).items():
        marked = re.search(r"NOT VERIFIED ON HARDWARE|· (followed|checked)|not what an? .* was measured to do", body)
        assert marked or title in ("1. What you need", 'What stands behind "followed"'), title


def test_edgeseg_understands_every_command(guide: Path) -> None:
    lines = re.findall(r"`(edgeseg [^`]+)`", guide.read_text())
    for block in read_guide(guide):
        joined = block.text.replace("\\\n", " ")
        lines += re.findall(r"(?:^|&& |^\S*/bin/|[=\s]\S*/bin/)(edgeseg \w[^>\n]*)", joined, re.MULTILINE)
    assert len(lines) >= 15
    assert {"boards", "doctor", "hil", "keys", "runtimes", "sign", "stream"} <= {line.split()[1] for line in lines}
    for line in lines:
        assert line.split()[1] in COMMANDS, line
        check_command_line(line)


def test_the_environment_is_read(guide: Path, name: str, tmp_path: Path) -> None:
    (text,) = [block.text for block in read_guide(guide) if block.language == "toml"]
    (tmp_path / "lab.toml").write_text(text)
    entry = read_environment(tmp_path / "lab.toml").board(name)
    assert entry.profile == TREES[name].removesuffix("-devkit")
    assert f"edgeseg boards show {entry.profile}" in guide.read_text() or name != "n100-1"
    assert (entry.host, entry.user, entry.key) == (f"{name}.lab", "edgeseg", str(tmp_path / "keys" / name))
    assert entry.trusted_keys == (str(tmp_path / "keys/release.pub"),)
    assert entry.measures
    assert entry.measures.threads <= float(profile(entry.profile, profiles()).limits["threads"].value)


def test_what_detection_prints(guide: Path, name: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "detect", partial(detect, tree))
    monkeypatch.setattr(boards, "Telemetry", partial(Telemetry, tree))
    printed = CliRunner().invoke(main, ["boards", "detect"])
    assert printed.exit_code == 0
    (quoted,) = [block for block in read_guide(guide) if block.place == OUTPUT and "board: " in block.text]
    assert quoted.text == printed.output
    assert f"tests/boards/trees/{TREES[name]}.toml" in quoted.note


def test_what_the_doctor_says(guide: Path, name: str, tree: Path) -> None:
    if name == "orin-1":
        (tree / "var/lib/nvpmodel/status").write_text("pmode:0000 fmode:quiet\n")
    for counter in tree.glob("sys/class/powercap/*/energy_uj"):
        counter.chmod(0o400)
    (quoted,) = [block.text for block in read_guide(guide) if block.place == OUTPUT and "[governor]" in block.text]
    assert quoted.splitlines() == doctor(tree, USER)
    if name == "orin-1":
        assert "sudo nvpmodel -m 2\n" in guide.read_text()
        assert any("sudo nvpmodel -m 2" in finding.fix for finding in examine(machine(tree, USER)))


def test_what_the_guide_sets_is_what_the_doctor_asks_for(name: str, guide: Path, tree: Path) -> None:
    limits = re.findall(r"^edgeseg - (\w+) (\w+)$", "".join(shown(guide, "limits.d")), re.MULTILINE)
    assert limits == [("rtprio", "80"), ("memlock", "unlimited")]
    permitted = replace(USER, rtprio=80, memlock_bytes=-1, gids=frozenset({4242, os.getgid()}))
    for counter in tree.glob("sys/class/powercap/*/energy_uj"):
        counter.chmod(0o400)
    assert any("[governor]" in line for line in doctor(tree, permitted))
    if name == "n100-1":
        (script,) = shown(guide, "sbin/edgeseg-lab")
        group = f"chgrp {os.getgid()} "
        script = script.replace("/sys/", f"{tree}/sys/").replace("chgrp edgeseg ", group)
        subprocess.run(["sh", "-c", script], check=True)
        assert doctor(tree, permitted) == []
        assert {path.stat().st_mode & 0o777 for path in tree.glob("sys/class/powercap/*/energy_uj")} == {0o440}


def test_the_units_are_read_by_systemd(guide: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing"
        pytest.skip("needs systemd-analyze")
    units = [*shown(guide, "system/edgeseg-lab"), *(b.text for b in read_guide(guide) if b.language == "ini")]
    assert len(units) == 2
    for number, unit in enumerate(units):
        program = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)
        assert program
        path = tmp_path / f"edgeseg-lab-{number}.service"
        path.write_text(unit.replace(program[1], "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=60, check=False
        )
        # It complains of what it ignores, and ends with 0 all the same.
        assert (done.returncode, done.stderr.replace("User=edgeseg", "")) == (0, ""), done.stderr


def test_the_line_for_cron(guide: Path) -> None:
    (line,) = [block.text.strip() for block in read_guide(guide) if block.language == "cron"]
    fields = re.fullmatch(r"((?:[\d*,/-]+ ){5})(.+)", line)
    assert fields
    minute, hour, *days = fields[1].split()
    assert 0 <= int(minute) < 60
    assert 0 <= int(hour) < 24
    assert days == ["*", "*", "*"]
    assert re.search(r"(?<!\\)%", fields[2]) is None, "cron ends the command at a % without a backslash"
    command = fields[2].replace(r"\%", "%")
    assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0
    said = subprocess.run(
        ["sh", "-c", command.replace("cd ~/lab", "true").replace("~/venv/bin/edgeseg", "echo edgeseg").split(" >>")[0]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r" -o station/20\d\d-\d\d-\d\d$", said.stdout)
    check_command_line(said.stdout)


def test_the_words_of_edgeseg_are_its_own(guide: Path) -> None:
    (table,) = [body for title, body in sections(guide).items() if title.endswith("When it does not work")]
    quoted = re.findall(r"^\| `([^`]+)`(?: \(doctor\))? \| ", table, re.MULTILINE)
    assert len(quoted) >= 10
    said = [text for path in sorted((ROOT / "boards").rglob("*.py")) for text in literals(path)]
    for message in quoted:
        parts = [part for part in message.split("...") if part.strip(" :,;")]
        assert any(all(part.strip() in text for part in parts) for text in said), message


def literals(path: Path) -> Iterator[str]:
    """Strings of a module; what a formatted one puts in is a hole."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "\0".join(str(part.value) if isinstance(part, ast.Constant) else "" for part in node.values).replace(
                "\0\0", "\0"
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_wheels_are_those_that_the_tests_run_with(guide: Path) -> None:
    rows = re.findall(r"^\| (openvino|ai-edge-litert|onnxruntime) \| ([\d.]+) \|", guide.read_text(), re.MULTILINE)
    assert len(rows) == 3
    asked = {
        r.name: r
        for line in importlib.metadata.requires("edgeseg") or []
        for r in [Requirement(line)]
        if r.name in dict(rows)
    }
    for package, version in rows:
        assert asked[package].specifier.contains(version), f"{package} {version} is not what edgeseg asks for"
        assert importlib.metadata.version(package) == version
    assert f"edgeseg-{__version__}-py3-none-any.whl" in guide.read_text()


@pytest.mark.hil
@pytest.mark.slow
def test_the_guide_is_followed(name: str, guide: Path, make_board, tmp_path: Path, bundle: Path) -> None:
    lab = Lab(name, make_board(), tmp_path / "home", bundle)
    lab.follow(read_guide(guide))
    assert "clientaliveinterval 5\nclientalivecountmax 3" in lab.said["3"]
    on_the_board, here = re.findall(r"^256 (SHA256:\S{43}) ", lab.said["4"], re.MULTILINE)
    assert on_the_board == here
    assert re.search(r"^uid=\d+\(edgeseg\)", lab.said["4"], re.MULTILINE)
    extras = re.findall(r"\.whl\[([a-z,]+)\]", guide.read_text())[0].split(",")
    engines = {ENGINES[extra] for extra in extras}
    assert f"Successfully installed edgeseg-{__version__}" in lab.said["5"]
    for engine in engines:
        assert re.search(rf"^{engine.replace('ai-edge-', '')} .* cpu +yes ", lab.said["6"], re.MULTILINE), lab.said["6"]
    assert re.search(r"^  profile: ", lab.said["6"], re.MULTILINE)
    assert re.search(r"^4096$", lab.said["7"], re.MULTILINE), "the file of limits is not heeded"
    assert "signed by release" in lab.said["8"]
    record = lab.folder / "station/record.jsonl"
    (board,) = [event["facts"] for event in events(record, "board")]
    assert set(board["engines"]) == {engine.replace("ai-edge-", "") for engine in engines}
    (installed,) = [
        e["command"] for e in events(record, "command") if e["step"] == "deploy" and "install" in e["command"]
    ]
    assert installed[0] == "/opt/edgeseg/bin/edgeseg"
    assert "--key" in installed
    assert [event["status"] for event in events(record, "bundle")] == ["passed"]
    assert "step verify passed" in lab.said["9"]
    assert "s measured" in lab.said["9"]
    assert name in (lab.folder / "station.html").read_text()
    assert "1 passed" in lab.said["11"]


def machine(tree: Path, process: Process) -> Machine:
    """The board of a tree without any engine: what there is of those is not the tree's."""
    board = detect(tree, profiles())
    with Telemetry(tree) as telemetry:
        reading = telemetry.read()
    return Machine(
        root=tree, board=board, profile=profiles()[board.profile], process=process, engines=(), reading=reading
    )


def doctor(tree: Path, process: Process) -> list[str]:
    """The headlines of what the doctor finds."""
    return [f"{finding.severity}: {finding.what} [{finding.code}]" for finding in examine(machine(tree, process))]
