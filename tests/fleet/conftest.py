"""A lab for tests: a real coordinator and real exporters, which go down whatever the test does."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from edgeseg.boards.fleet.lab import list_places
from edgeseg.boards.hil.environment import BoardEntry, Limits
from edgeseg.boards.hil.transport import Holder
from edgeseg.cli import main

from ..hil.conftest import QUICK, candidate, make_board, wait_until  # noqa: F401

CLI = (sys.executable, "-m", "edgeseg.cli", "hil", "fleet")
SHELF = ("orin-1", "orin-2", "orin-3", "n100")
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


class Process:
    """A command that runs until it is stopped, and what it says."""

    def __init__(self, words: tuple[str, ...], ready: str, **environment: str) -> None:
        self.popen = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
        )
        self.said: list[str] = []
        self._ready, self._started = threading.Event(), False
        self._thread = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._thread.start()
        self._ready.wait(60)
        assert self._started, "".join(self.said)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def _read(self, ready: str) -> None:
        for line in self.popen.stdout:
            self.said.append(line)
            if ready in line:
                self._started = True
                self._ready.set()
        self._ready.set()


@dataclass
class Lab:
    """A coordinator, and what is at it."""

    folder: Path
    port: int
    processes: list[Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Process:
        state = str(self.folder / "state")
        process = Process((*CLI, "coordinator", "--listen", self.address, "--state", state), "listening on")
        self.processes.append(process)
        return process

    def export(self, *boards: BoardEntry, name: str, ready: str = "Exporter ready", **environment: str) -> Process:
        """Offer boards, by the command line."""
        path = self.folder / f"{name}.toml"
        keys = ("name", "transport", "profile", "host", "port", "user", "key", "host_key")
        lines = [[f"{key} = {json.dumps(getattr(board, key))}" for key in keys] for board in boards]
        path.write_text("\n".join(line for board in lines for line in ("[[boards]]", *board)))
        words = (*CLI, "export", str(path), "--name", name, "--coordinator", self.address)
        process = Process(words, ready, XDG_STATE_HOME=str(self.folder), **environment)
        self.processes.append(process)
        wanted = {board.name for board in boards}

        def offered() -> bool:
            return wanted <= {place.name for place in list_places(self.address) if place.exporter == name}

        assert wait_until(offered), "".join(process.said + self.processes[0].said[-50:])
        return process

    def entry(self, board: BoardEntry, **changes: Any) -> BoardEntry:
        """A board as a runner asks the fleet for it."""
        pins = {"host_keys": {board.name: board.host_key}, "host_key": ""}
        asked = {"transport": "labgrid", "place": board.name, "host": "", "user": "", "coordinator": self.address}
        return msgspec.structs.replace(board, **{**asked, **pins, **changes})

    def cli(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["hil", "fleet", *words, "--coordinator", self.address])

    def held(self) -> dict[str, str]:
        """Who has each place."""
        return {place.name: place.holder for place in list_places(self.address)}


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Lab]]:
    labs = []

    def make() -> Lab:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        lab = Lab(tmp_path_factory.mktemp("lab"), port)
        labs.append(lab)
        lab.start()
        return lab

    yield make
    for process in [process for lab in labs for process in lab.processes]:
        process.kill()


@pytest.fixture(scope="session")
def lab(make_lab: Callable[[], Lab]) -> Lab:
    """A coordinator, and an exporter that offers boards where nothing answers: three of a kind, and one of another."""
    made = make_lab()
    shelf = [nobody(name, profile="orin" if name.startswith("orin") else "n100") for name in SHELF]
    made.export(*shelf, name="shelf")
    return made


def nobody(name: str, **changes: Any) -> BoardEntry:
    """A board where nothing answers, for what goes wrong before that."""
    board = BoardEntry(name=name, host="127.0.0.1", port=9, user="root", key=__file__, host_key=HOST_KEY)
    return msgspec.structs.replace(board, measures=QUICK, limits=Limits(), **changes)


def runner() -> Holder:
    """A run of its own."""
    return Holder(f"run-{secrets.token_hex(4)}", "tester", "here", os.getpid(), "2026-01-01T00:00:00.000Z")
