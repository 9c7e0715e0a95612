"""The child's side of an isolated engine: models and tensors come in through shared memory, one session at a time.

Started by `edgeseg.runtimes.isolated_process`, inside its sandbox. The process that asks is trusted; the model is not.
"""

from __future__ import annotations

import mmap
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from edgeseg import plugins
from edgeseg.errors import EdgesegError, InferenceError, MissingDependency
from edgeseg.manifest import decode_artifact
from edgeseg.runtimes.isolated_messages import (
    DTYPES,
    LARGEST_PACKET,
    Collect,
    Done,
    Executed,
    Failed,
    Inspect,
    Load,
    Loaded,
    Ready,
    Reply,
    Request,
    Run,
    Tensor,
    TooSmall,
    Unloaded,
    offsets,
    view,
)
from edgeseg.runtimes.sandbox import limit_memory
from edgeseg.types import Array, Model, Runtime, Session

# How engines and Python say that an allocation failed; XNNPACK does not say more than the last one.
_NO_MEMORY = re.compile(
    r"bad.?alloc|alloc\w* (?:failed|memory)|(?:fail\w*|can ?not|unable) (?:to )?alloc|out of memory|MemoryError|"
    r"failed to reshape runtime",
    re.IGNORECASE,
)
_LONGEST_MESSAGE = 900


def serve(runtime: str, memory_mb: int, channel: int, applied: tuple[str, ...]) -> None:
    """Import an engine, limit the memory and answer requests until the other side is gone.

    Args:
        runtime: a name of `edgeseg.plugins.RUNTIMES`.
        memory_mb: what a model may use, in MiB.
        channel: descriptor of a SOCK_SEQPACKET socket.
        applied: what the sandbox does already.
    """
    with socket.socket(fileno=channel) as connection:
        try:
            engine = plugins.runtime(runtime)
            ready = Ready(engine.version(), (limit_memory(memory_mb), *applied))
        except Exception as error:
            connection.send(msgspec.json.encode(_failed(error, memory_mb)))
            return
        connection.send(msgspec.json.encode(ready))
        _Worker(engine, memory_mb, connection).serve()


class _Worker:
    def __init__(self, engine: Runtime, memory_mb: int, connection: socket.socket) -> None:
        self._engine, self._memory_mb, self._connection = engine, memory_mb, connection
        self._decoder = msgspec.json.Decoder(Request)
        # From frame to frame request and reply are the same; writing and reading them again would take a tenth of a ms.
        self._request: tuple[bytes, Request | None] = (b"", None)
        self._reply: tuple[Reply | None, bytes] = (None, b"")
        self._forget()

    def _forget(self) -> None:
        self._session: Session | None = None
        self._memory: mmap.mmap | None = None
        self._tensors: tuple[Tensor, ...] | None = None
        self._feeds: dict[str, Array] = {}
        self._outputs: list[Array] = []
        self._places: tuple[Array, ...] = ()
        self._kinds: list[tuple[np.dtype[Any], tuple[int, ...]]] = []
        self._done = Done(())
        self._end = 0

    def serve(self) -> None:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(self._connection, LARGEST_PACKET, 1)
            if not packet:
                return
            answer = self._answer(packet, descriptors)
            if answer is not self._reply[0]:
                self._reply = (answer, msgspec.json.encode(answer))
            reply = self._reply[1]
            if len(reply) > LARGEST_PACKET:
                failure = InferenceError("the names and shapes of the model's inputs and outputs are too long to tell")
                reply = msgspec.json.encode(_failed(failure, self._memory_mb))
            self._connection.send(reply)

    def _answer(self, packet: bytes, descriptors: list[int]) -> Reply:
        try:
            if packet != self._request[0]:
                self._request = (packet, self._decoder.decode(packet))
            request = self._request[1]
            assert request is not None
            return self._do(request, descriptors)
        except Exception as error:
            return _failed(error, self._memory_mb)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _do(self, request: Request, descriptors: list[int]) -> Reply:
        if isinstance(request, Load):
            return self._load(request, descriptors[0])
        if self._session is None:
            raise InferenceError("no model is loaded")
        if isinstance(request, Run):
            return self._run(self._session, request, descriptors)
        if isinstance(request, Collect):
            self._memory = mmap.mmap(descriptors[0], request.memory)
            self._tensors, self._feeds, self._kinds, self._end = None, {}, [], 0
            return self._put()
        if isinstance(request, Inspect):
            return Executed(self._session.execution())
        session = self._session
        self._forget()
        session.close()
        return Unloaded()

    def _load(self, request: Load, descriptor: int) -> Loaded:
        model = _model(request, descriptor)
        session = self._engine.load(model, device=request.device, threads=request.threads, options=request.options)
        for spec in (*session.inputs, *session.outputs):
            if spec.dtype not in DTYPES:
                session.close()
                raise InferenceError(f"{model.name} has tensor {spec.name!r} of {spec.dtype}, which has no fixed size")
        self._session = session
        return Loaded(session.inputs, session.outputs, session.device)

    def _run(self, session: Session, request: Run, descriptors: list[int]) -> Reply:
        if request.memory:
            self._memory = mmap.mmap(descriptors[0], request.memory)
        if request.memory or request.feeds != self._tensors:
            self._tensors, self._kinds = request.feeds, []
            places, self._end = offsets(request.feeds)
            tensors = zip(session.inputs, request.feeds, places, strict=True)
            self._feeds = {spec.name: view(tensor, self._memory, place) for spec, tensor, place in tensors}
        self._outputs = _ordered(session.run(self._feeds), session)
        return self._put()

    def _put(self) -> Reply:
        """Copy the outputs of the last run behind the inputs."""
        kinds = [(array.dtype, array.shape) for array in self._outputs]
        if kinds != self._kinds:
            tensors = tuple(Tensor.of(array) for array in self._outputs)
            places, end = offsets(tensors, self._end)
            if self._memory is None or end > len(self._memory):
                return TooSmall(end)
            self._places = tuple(view(t, self._memory, p) for t, p in zip(tensors, places, strict=True))
            self._kinds, self._done = kinds, Done(tensors)
        for place, array in zip(self._places, self._outputs, strict=True):
            np.copyto(place, array)
        self._outputs = []
        return self._done


def _model(request: Load, descriptor: int) -> Model:
    size = sum(request.sizes) + request.entry_size
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as memory:
        files = tuple(memory.read(n) for n in request.sizes)
        entry = memory.read(request.entry_size)
    return Model(request.name, request.format, files, decode_artifact(entry) if entry else None)


def _ordered(outputs: Mapping[str, Array], session: Session) -> list[Array]:
    found = [np.asarray(outputs[spec.name]) for spec in session.outputs]
    for array in found:
        if array.dtype.name not in DTYPES:
            raise InferenceError(f"the model gave {array.dtype.name}, which has no fixed size")
    return found


def _failed(error: Exception, memory_mb: int) -> Failed:
    if isinstance(error, MissingDependency):
        return Failed("MissingDependency", (error.package, error.needed_for, error.extra))
    expected = isinstance(error, EdgesegError)
    message = (str(error) if expected else f"{type(error).__name__}: {error}")[:_LONGEST_MESSAGE]
    # An InferenceError tells only the beginning of what the engine said.
    if _NO_MEMORY.search(f"{error!r} {error.__cause__!r}"):
        message += f" (within the limit of {memory_mb} MB of memory)"
    return Failed(type(error).__name__ if expected else "InferenceError", (message,))
