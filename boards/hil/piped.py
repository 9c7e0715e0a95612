"""What the transports share: scripts of `onboard` at the other end of three pipes, local or over ssh."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.transport import BEAT_S, SILENCE_S, WAIT, Completed, Holder, script
from edgeseg.durable import write_file
from edgeseg.errors import BadInput, BoardBusy, BoardError, BoardTimeout, BoardUnreachable

_GRACE_S = 15.0
_SEPARATOR = b"\x1e"
_BLOCK = 1 << 16
_SHOWN = 200


class PipedTransport(ABC):
    """A transport that runs a Python script at the other end of three pipes.

    Attributes:
        name, where, boot_id: as of `Transport`.
    """

    where: str

    def __init__(self, entry: BoardEntry) -> None:
        self.name = entry.name
        self.boot_id = ""
        self._entry = entry
        self._lease: _Process | None = None

    def open(self, holder: Holder) -> None:
        """Connect and take the board; raises as `Transport.open`."""
        request = {"path": self._entry.lease, "holder": holder.as_json(), "silence_s": SILENCE_S}
        self._lease = lease = _Process(self._first_command(self._script("lease", request)), drain_errors=True)
        line = lease.first_line(self._connect_within_s)
        try:
            answer = json.loads(line)
        except ValueError:
            lease.end()
            if line.strip():
                raise BoardError(
                    f"{self.name}: {self.where} said {line.strip()[:_SHOWN]!r} before the answer: "
                    "let its shell print nothing for commands (.bashrc)"
                ) from None
            raise self._failed(lease.returncode, lease.errors) from None
        if not answer["held"]:
            lease.end()
            raise self._taken(answer)
        self.boot_id = answer["boot_id"]

    def run(self, command: Sequence[str], timeout_s: float, fetch: Sequence[str] = ()) -> Completed:
        """As `Transport.run`."""
        self._check_lease()
        request = {"command": list(command), "timeout_s": timeout_s, "silence_s": SILENCE_S, "fetch": list(fetch)}
        process = _Process(self._next_command(self._script("guard", request)))
        what = _shown(command)
        output = self._wait(process, timeout_s, what)
        body, end = self._parsed(output, process)
        if end["ended"] == "timeout":
            raise BoardTimeout(f"{self.name}: {what} took longer than {timeout_s:g} s and was killed there")
        if end["ended"] == "not started":
            raise BoardError(f"{self.name}: {command[0]} cannot be run there: {end['reason']}")
        if end["ended"] != "exit":
            raise BoardUnreachable(f"{self.name}: the connection was silent for too long, {what} was killed there")
        self._check_lease()
        return Completed(end["rc"], body, process.errors, end["seconds"], end["files"])

    def put(self, source: Path, remote: str, timeout_s: float) -> None:
        """As `Transport.put`."""
        self._check_lease()
        paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        digest = hashlib.sha256()
        for block in _blocks(paths):
            digest.update(block)
        request = {
            "target": remote,
            "folder": source.is_dir(),
            "files": [{"path": p.relative_to(source).as_posix(), "size": p.stat().st_size} for p in paths],
            "sha256": digest.hexdigest(),
            "silence_s": SILENCE_S,
        }
        process = _Process(self._next_command(self._script("receive", request)), beats=False)
        process.feed(_blocks(paths))
        output = self._wait(process, timeout_s, f"bringing {source.name} there")
        error = self._parsed(output, process)[1]["error"]
        if error:
            raise BoardError(f"{self.name}: {source.name} cannot be written to {remote}: {error}")

    def get(self, remote: str, target: Path, timeout_s: float) -> None:
        """As `Transport.get`."""
        done = self.run(["cat", "--", remote], timeout_s)
        if done.rc:
            raise BoardError(f"{self.name}: {remote} cannot be read: {last_line(done.stderr)}")
        try:
            write_file(target, done.stdout)
        except OSError as error:
            raise BadInput(f"{target} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """As `Transport.close`."""
        if self._lease:
            self._lease.end()
            self._lease = None

    _connect_within_s = 30.0

    def _check_lease(self) -> None:
        """Raise BoardUnreachable where the board is not held any more: another runner may have it."""
        if self._lease is None:
            raise BoardUnreachable(f"{self.name}: not connected to {self.where}")
        if self._lease.has_ended:
            self._lease.end()
            why = last_line(self._lease.errors)
            raise BoardUnreachable(f"{self.name}: the connection that holds {self.where} has ended: {why}")

    @abstractmethod
    def _first_command(self, command: list[str]) -> list[str]:
        """What runs the first command at the other end, and connects."""

    @abstractmethod
    def _next_command(self, command: list[str]) -> list[str]:
        """What runs any other."""

    @abstractmethod
    def _failed(self, returncode: int | None, errors: str) -> BoardError:
        """Why a script did not answer."""

    def _script(self, name: str, request: dict[str, Any]) -> list[str]:
        return [self._entry.python, "-I", "-S", "-c", script(name), json.dumps(request)]

    def _wait(self, process: _Process, timeout_s: float, what: str) -> bytes:
        try:
            return process.output(timeout_s + _GRACE_S)
        except subprocess.TimeoutExpired as error:
            raise BoardUnreachable(f"{self.name}: no answer from {self.where} while {what} ran") from error
        finally:
            process.end()

    def _parsed(self, output: bytes, process: _Process) -> tuple[bytes, dict[str, Any]]:
        body, separator, end = output.rpartition(_SEPARATOR)
        if not separator:
            raise self._failed(process.returncode, process.errors)
        try:
            answer: dict[str, Any] = json.loads(end)
        except ValueError as error:
            raise self._failed(process.returncode, process.errors) from error
        return body, answer

    def _taken(self, answer: dict[str, Any]) -> BoardError:
        if "error" in answer:
            return BoardError(f"{self.name}: the lease cannot be taken, {answer['error']}")
        holder = answer["holder"]
        who, run = "another runner", ""
        if isinstance(holder, dict) and "run" in holder:
            started = (
                f"{holder.get('user')}@{holder.get('host')}, process {holder.get('pid')}, since {holder.get('since')}"
            )
            run = str(holder["run"])
            who = f"run {run} ({started})"
        return BoardBusy(f"{self.name} is in use by {who}: {WAIT}", run)


class _Process:
    """A process with pipes, whose standard input carries heartbeats from a thread."""

    def __init__(self, command: list[str], *, beats: bool = True, drain_errors: bool = False) -> None:
        # A pipe of our own: subprocess would close its one before the process has ended.
        read_end, self._stdin = os.pipe()
        try:
            self._process = subprocess.Popen(
                command, stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            os.close(self._stdin)
            raise BoardError(f"{command[0]} cannot be started: {error.strerror}") from error
        finally:
            os.close(read_end)
        self.errors = ""
        self._over = threading.Event()
        self._closing = threading.Lock()
        self._drain: threading.Thread | None = None
        if beats:
            threading.Thread(target=self._beat, daemon=True).start()
        if drain_errors:
            self._drain = threading.Thread(target=self._read_errors, daemon=True)
            self._drain.start()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def first_line(self, timeout_s: float) -> str:
        """The first line of its output, "" where there is none in time."""
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            return self._process.stdout.readline().decode(errors="replace")
        finally:
            timer.cancel()

    def output(self, timeout_s: float) -> bytes:
        """All of its output when it has ended. Raises TimeoutExpired."""
        output, errors = self._process.communicate(timeout=timeout_s)
        self.errors = errors.decode(errors="replace")
        return output

    def feed(self, blocks: Iterator[bytes]) -> None:
        """Begin to write to its standard input, until all is written or it is not read any more."""
        # The thread's own: the other one may be closed in the middle, and then be of another board's file.
        descriptor = os.dup(self._stdin)
        threading.Thread(target=_write, args=(descriptor, blocks), daemon=True).start()

    def end(self) -> None:
        """Hang up, and see that the process ends; calling it twice is allowed."""
        self._over.set()
        with self._closing:
            if self._stdin >= 0:
                os.close(self._stdin)
                self._stdin = -1
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._drain:
            self._drain.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._closing:
                if self._stdin < 0:
                    return
                try:
                    os.write(self._stdin, b".")
                except OSError:
                    return

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.errors = (self.errors + line.decode(errors="replace"))[-4096:]


def last_line(text: str) -> str:
    """The last line that says something, for a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_SHOWN] if lines else "it said nothing"


def _shown(command: Sequence[str]) -> str:
    line = " ".join(command)
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def _write(descriptor: int, blocks: Iterator[bytes]) -> None:
    with contextlib.suppress(OSError), os.fdopen(descriptor, "wb", buffering=0) as stream:
        for block in blocks:
            left = memoryview(block)
            while left:
                left = left[stream.write(left) :]


def _blocks(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
