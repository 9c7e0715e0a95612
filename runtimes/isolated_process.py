"""A child process with one engine in it, as its parent sees it: asked in packets, given deadlines, ended for sure."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import msgspec

from edgeseg import errors
from edgeseg.errors import EdgesegError, EngineCrashed, EngineTimeout, InferenceError, MissingDependency
from edgeseg.runtimes.isolated_messages import LARGEST_PACKET, Failed, Reply, Request
from edgeseg.runtimes.sandbox import Limits, ending
from edgeseg.runtimes.scratch import new_scratch

# The sandbox comes first: while there is one thread, and before any code of an engine runs.
_START = """
import json, sys
setup = json.loads(sys.argv[1])
sys.path += setup["path"]
from edgeseg.runtimes import sandbox
sandbox.die_with_pipe(setup["lifeline"])
if setup["parent"]:
    sandbox.die_with_parent(setup["parent"])
applied = sandbox.confine(setup["readable"], setup["scratch"])
from edgeseg.runtimes.isolated_worker import serve
serve(setup["runtime"], setup["memory_mb"], setup["socket"], applied)
"""
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "HOME": "/proc/nonexistent",
    # Arenas reserve address space, and threads that start before the sandbox would not be in it.
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# Its profile, by which it tells what it executes, is a file.
_NEED_SCRATCH = ("onnxruntime",)
_KEPT_VARIABLES = ("LD_LIBRARY_PATH",)
_PACKAGES = ("edgeseg", "edgeseg.runtimes", "edgeseg.samples")
_DYING_S = 0.5
_LONGEST_LINE = 240
_STDERR_BYTES = 1 << 16
# What a child may say went wrong; anything else it says becomes an InferenceError.
_KINDS = ("BadInput", "ExecutionMismatch", "InferenceError", "NoSuchDevice")

_decoder: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()


class EngineProcess:
    """One child process. Whatever goes wrong with it ends it, and from then on everything raises.

    Attributes:
        runtime: the name of the runtime in it.
        limits: what it may use.
    """

    def __init__(self, runtime: str, limits: Limits) -> None:
        self.runtime = runtime
        self.limits = limits
        self._ended = ""
        # What an engine executes may be asked for while another thread waits for a run.
        self._one_question = threading.Lock()
        self._timeout: float | None = None
        # From frame to frame request and reply are the same, and neither is written or read again.
        self._asked: tuple[Request | None, bytes] = (None, b"")
        self._heard: tuple[bytes, Reply | None] = (b"", None)
        if not hasattr(os, "memfd_create"):
            raise InferenceError(f"an engine in a process of its own needs Linux, this is {sys.platform}")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        alive, lifeline = os.pipe2(os.O_CLOEXEC)
        said, stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        scratch, lock = new_scratch() if runtime in _NEED_SCRATCH else ("", ())
        pipes = (said, lifeline, *lock)
        try:
            self._process = _spawn(runtime, limits, theirs.fileno(), alive, stderr, scratch)
        except OSError as error:
            _free(ours, pipes, scratch)
            raise InferenceError(f"no process can be started for {runtime}: {error.strerror or error}") from error
        finally:
            theirs.close()
            for descriptor in (alive, stderr):
                os.close(descriptor)
        self._socket, self._said = ours, said
        self._finish = weakref.finalize(self, _end, self._process, os.getpid(), ours, pipes, scratch)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._ended

    def ask(self, request: Request, what: str, seconds: float, descriptor: int | None = None) -> Reply:
        """Send a request and wait for the answer, which has the right types and is not to be trusted further.

        Args:
            request: what is asked.
            what: what is being done, for messages, as in "running onnx-int8".
            seconds: until the child is killed.
            descriptor: goes with the request.

        Raises:
            EngineTimeout: no answer in time.
            EngineCrashed: the child is dead, or answered with nonsense.
            EdgesegError: what the child says went wrong; the child lives on.
        """
        with self._one_question:
            # Asked again in here: the question before may have ended it.
            if self._ended:
                raise InferenceError(f"the process of {self.runtime} {self._ended}: load the artifact again")
            try:
                if request is not self._asked[0]:
                    self._asked = (request, _encoder.encode(request))
                self._send(self._asked[1], seconds, descriptor)
                reply = self._receive(what, seconds)
            except BaseException:
                self.end()
                raise
        if isinstance(reply, Failed):
            raise self._error(reply)
        return reply

    def first(self, seconds: float) -> Reply:
        """What the child says without being asked, once its engine is imported; raises as `ask`."""
        try:
            reply = self._receive("starting", seconds)
        except BaseException:
            self.end()
            raise
        if isinstance(reply, Failed):
            self.end()
            raise self._error(reply)
        return reply

    def nonsense(self, what: str, details: str) -> EngineCrashed:
        """End a child that said what no child of ours would say; returns the error."""
        return EngineCrashed(self._dead(f"gave a wrong answer while {what} ({clean(details)}) and was ended"))

    def forget_output(self) -> None:
        """Drop what the child wrote to stderr up to now."""
        self._last_line()

    def abort(self) -> None:
        """Kill the child, from any thread: who waits for its answer learns that it crashed."""
        self._process.kill()

    def end(self) -> None:
        """Kill the child and free everything; calling it twice is allowed."""
        self._ended = self._ended or "was ended"
        self._finish()

    def _send(self, packet: bytes, seconds: float, descriptor: int | None) -> None:
        if len(packet) > LARGEST_PACKET:
            raise InferenceError(f"{len(packet)} bytes of names and shapes are too many for one request")
        self._wait_at_most(seconds)
        # Where the child is dead, receiving finds out how it died.
        with contextlib.suppress(ConnectionError):
            if descriptor is None:
                self._socket.send(packet)
            else:
                socket.send_fds(self._socket, [packet], [descriptor])

    def _receive(self, what: str, seconds: float) -> Reply:
        self._wait_at_most(seconds)
        try:
            packet = self._socket.recv(LARGEST_PACKET)
        except TimeoutError:
            line = f"took longer than the limit of {seconds:g} s while {what} and was ended"
            raise EngineTimeout(self._dead(line)) from None
        except ConnectionError:
            packet = b""
        if not packet:
            raise self._crashed(what)
        if packet == self._heard[0] and self._heard[1] is not None:
            return self._heard[1]
        try:
            self._heard = (packet, _decoder.decode(packet))
            return self._heard[1]
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.nonsense(what, str(error)) from error

    def _wait_at_most(self, seconds: float) -> None:
        if seconds != self._timeout:
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def _crashed(self, what: str) -> EngineCrashed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)
        code = self._process.returncode
        how = "closed its connection" if code is None else ending(code)
        line = self._last_line()
        said = f": {line}" if line else ""
        limit = f"its limit was {self.limits.memory_mb} MB of memory"
        return EngineCrashed(self._dead(f"crashed ({how}) while {what}, {limit}{said}"))

    def _dead(self, how: str) -> str:
        """End the child for a reason; returns that in a sentence."""
        self._ended = " ".join(how.split())
        self.end()
        return f"{self.runtime} {self._ended}"

    def _last_line(self) -> str:
        if not self.alive:
            return ""
        try:
            lines = os.read(self._said, _STDERR_BYTES).decode(errors="replace").strip().splitlines()
        except BlockingIOError:
            return ""
        return clean(lines[-1]) if lines else ""

    def _error(self, failed: Failed) -> EdgesegError:
        arguments = tuple(clean(a, 1000) for a in failed.arguments)
        if failed.kind == "MissingDependency" and len(arguments) == 3:
            return MissingDependency(*arguments)
        kind: type[EdgesegError] = getattr(errors, failed.kind) if failed.kind in _KINDS else InferenceError
        return kind(" ".join(arguments))


def clean(text: str, longest: int = _LONGEST_LINE) -> str:
    """One line of printable characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:longest].strip()


def _spawn(
    runtime: str, limits: Limits, channel: int, alive: int, stderr: int, scratch: str
) -> subprocess.Popen[bytes]:
    search = _search_path()
    setup = {
        "runtime": runtime,
        "memory_mb": limits.memory_mb,
        "socket": channel,
        "lifeline": alive,
        "scratch": scratch,
        # The kernel's signal comes when the starting thread ends, which only for the main one means the process.
        "parent": os.getpid() if threading.current_thread() is threading.main_thread() else 0,
        "path": search,
        "readable": [*(p for p in search if _is_site(p)), *_own_folders(), *_library_path()],
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", _START, json.dumps(setup)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        cwd="/",
        env=_environment(os.environ) | ({"TMPDIR": scratch} if scratch else {}),
        pass_fds=(channel, alive),
        start_new_session=True,
    )


def _search_path() -> list[str]:
    """Where installed packages are, and edgeseg itself: -I leaves out PYTHONPATH and the user's own packages."""
    root = str(Path(import_module("edgeseg").__path__[0]).resolve().parent)
    return [p for p in dict.fromkeys([*sys.path, root]) if p == root or (p and _is_site(p))]


def _is_site(path: str) -> bool:
    return any(Path(path).glob("*.dist-info"))


def _own_folders() -> list[str]:
    return [folder for name in _PACKAGES for folder in import_module(name).__path__]


def _library_path() -> list[str]:
    return [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return _ENVIRONMENT | {name: variables[name] for name in _KEPT_VARIABLES if name in variables}


def _end(
    process: subprocess.Popen[bytes], owner: int, channel: socket.socket, pipes: tuple[int, ...], scratch: str
) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that has the child
    process.kill()
    process.wait()
    _free(channel, pipes, scratch)


def _free(channel: socket.socket, pipes: tuple[int, ...], scratch: str) -> None:
    channel.close()
    for descriptor in pipes:
        os.close(descriptor)
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
