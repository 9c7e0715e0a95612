"""The guides to a real lab, block by block, and an emulated board on which their commands are followed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

from edgeseg.boards.emulated.board import EmulatedBoard

ROOT = Path(__file__).parents[2]
GUIDES = {
    "n100-1": ROOT / "docs" / "lab-intel-n100.md",
    "orin-1": ROOT / "docs" / "lab-jetson-orin-nano.md",
}
WORKSTATION, BOARD_ROOT, BOARD_USER, OUTPUT = "workstation", "board, root", "board, edgeseg", "output"
FOLLOWED, CHECKED, NOT_VERIFIED = "followed", "checked", "NOT VERIFIED ON HARDWARE"
PORT = 2222
LENT = "/opt/lent"
_BLOCK_S = 240
_BLOCK = re.compile(
    rf"^\*\*({WORKSTATION}|{BOARD_ROOT}|{BOARD_USER}|{OUTPUT})\*\*"
    rf" · ({FOLLOWED}|{CHECKED}|{NOT_VERIFIED})(?:: ([^\n]+))?\n\n"
    r"```(\w+)\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "demo", "runs", "*.egg-info", ".*_cache", "tests"
)
_QUICK = """
[measures]
warm_up_rounds = 0
bench_rounds = 2
bench_repeats = 1
soak_minutes = 0
timeout_s = 200
"""
_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a guide with what stands before it: where it belongs, and what stands behind it."""

    section: str
    place: str
    mark: str
    note: str
    language: str
    text: str


def read_guide(path: Path) -> list[Block]:
    """All marked blocks of a guide in their order; the section is its number, as in "3"."""
    found = []
    for title, body in sections(path).items():
        found += [
            Block(title.split(".")[0], *(part or "" for part in match.groups())) for match in _BLOCK.finditer(body)
        ]
    return found


def sections(path: Path) -> dict[str, str]:
    """Texts of a guide by their titles."""
    _, *parts = re.split(r"^## (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


class Lab:
    """A workstation's folder, and an emulated board that stands in for the one of a guide.

    Attributes:
        home: the user's home on the workstation.
        folder: where the guide's commands run there.
        said: what the commands of each section printed.
    """

    def __init__(self, name: str, board: EmulatedBoard, home: Path, bundle: Path) -> None:
        self._name, self._board = name, board
        self.home, self.folder = home, home / "lab"
        self.said: dict[str, str] = defaultdict(str)
        self._shims = home / "shims"
        shutil.copytree(ROOT, home / "edgeseg", symlinks=True, ignore=_NOT_SOURCE)
        shutil.copytree(bundle, self.folder / "head.edgeseg")
        self._prepare_board()
        self._prepare_workstation()

    def follow(self, blocks: list[Block]) -> None:
        """Run what is marked so, and do what the others are there for."""
        for block in blocks:
            if block.mark == FOLLOWED:
                self.said[block.section] += self._run(block)
                if "-m venv" in block.text:
                    self._lend_packages()
            elif "/tmp/" in block.text and block.text.startswith("scp "):
                public = (self.folder / "keys" / f"{self._name}.pub").read_text(encoding="ascii").strip()
                self._root(f"echo {shlex.quote(public)} > /tmp/{self._name}.pub")
            elif "systemctl reload ssh" in block.text:
                self._root(f"/usr/sbin/sshd -p {PORT} -E /var/log/lab-sshd")

    def _run(self, block: Block) -> str:
        text = block.text.replace(f"{self._name}.lab", self._board.address)
        if block.language == "toml":
            (self.folder / "lab.toml").write_text(self._environment(text), encoding="utf-8")
            return ""
        assert block.language == "sh", block.language
        if block.place == BOARD_ROOT:
            return self._root(text.replace("memlock unlimited", "memlock 4096"))
        if block.place == BOARD_USER:
            return self._as_edgeseg(text.replace("python3 -m venv", f"{_PYTHON} -m venv"))
        return self._workstation(text)

    def _environment(self, text: str) -> str:
        text = re.sub(r"^profile = .*\n", "", text, flags=re.MULTILINE).split("[limits]")[0]
        pinned = self.said["4"].splitlines()
        (host_key,) = [line for line in pinned if line.startswith("ssh-ed25519 ")]
        return (
            re.sub(r'^host_key = ".*"$', f'host_key = "{host_key}"\nport = {PORT}', text, flags=re.MULTILINE) + _QUICK
        )

    def _root(self, text: str) -> str:
        return self._board.inside("env", "-i", f"PATH={_PATH}", "HOME=/root", "bash", "-euo", "pipefail", "-c", text)

    def _as_edgeseg(self, text: str) -> str:
        pinned = ("-o", f"UserKnownHostsFile=keys/{self._name}.host", "-o", "StrictHostKeyChecking=yes")
        login = ("ssh", "-i", f"keys/{self._name}", *pinned, f"edgeseg@{self._board.address}", "bash -eu")
        return self._workstation(shlex.join(login), text)

    def _workstation(self, text: str, given: str = "") -> str:
        programs = (self._shims, Path(sys.executable).parent, os.environ["PATH"])
        variables = {
            "HOME": str(self.home),
            "PATH": ":".join(map(str, programs)),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is none: nothing is fetched
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=variables,
            input=given,
            timeout=_BLOCK_S,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{given}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _prepare_board(self) -> None:
        """What a board has and this one has not: sudo, host keys of its own; and a Python that others may run."""
        shown = {parent for path in (_PYTHON.resolve(), _site()) for parent in path.parents}
        self._root(
            "printf '#!/bin/sh\\nexec \"$@\"\\n' > /usr/local/bin/sudo && chmod 755 /usr/local/bin/sudo\n"
            "rm -rf /etc/ssh/ssh_host_* /var/tmp/edgeseg* && ssh-keygen -A > /dev/null && mkdir -p /run/sshd\n"
            f"chmod o+x {shlex.join(map(str, shown))}"
        )

    def _prepare_workstation(self) -> None:
        self._shims.mkdir()
        for program, option in (
            ("ssh", f"-F none -o Port={PORT}"),
            ("scp", f"-F none -P {PORT}"),
            ("ssh-keyscan", f"-p {PORT}"),
        ):
            shim = self._shims / program
            shim.write_text(f'#!/bin/sh\nexec {shutil.which(program)} {option} "$@"\n', encoding="ascii")
            shim.chmod(0o755)

    def _lend_packages(self) -> None:
        """Let the new environment see what the wheel asks for, and nothing else."""
        (wheel,) = (self.folder / "wheels").glob("*.whl")
        extras = set(re.findall(r"\.whl\[([a-z,]+)\]", GUIDES[self._name].read_text(encoding="utf-8")))
        assert len(extras) == 1
        site, names = _site(), sorted(_asked_for(wheel, extras.pop().split(",")))
        parts = sorted({part for name in names for part in _parts(name)})
        self._root(f"mkdir {LENT} && ln -s {shlex.join(str(site / part) for part in parts)} {LENT}")
        self._as_edgeseg(f"echo {LENT} > /opt/edgeseg/lib/{_PYTHON.name}/site-packages/lent.pth")


def _site() -> Path:
    return Path(importlib.metadata.distribution("numpy").locate_file(""))


def _asked_for(wheel: Path, extras: list[str]) -> set[str]:
    """Names of all distributions that a wheel needs, with what those need."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    waiting = [(metadata.get_all("Requires-Dist") or [], extras)]
    found: set[str] = set()
    while waiting:
        lines, wanted = waiting.pop()
        for requirement in map(Requirement, lines):
            asked = [not requirement.marker or requirement.marker.evaluate({"extra": e}) for e in (*wanted, "")]
            if any(asked) and requirement.name not in found:
                found.add(requirement.name)
                waiting.append((importlib.metadata.requires(requirement.name) or [], list(requirement.extras)))
    return found


def _parts(name: str) -> set[str]:
    """What a distribution put into site-packages."""
    files = importlib.metadata.files(name) or []
    return {path.parts[0] for path in files if path.parts[0] not in ("..", "__pycache__")}
