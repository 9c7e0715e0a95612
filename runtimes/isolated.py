"""An engine in a process of its own: what crashes, hangs or eats memory there is a typed error here.

    with IsolatedWorker("onnxruntime", Limits(memory_mb=512)) as worker:
        with worker.load(model) as session:      # a session like any other
            session.run(feeds)
        with worker.load(another) as session:    # the same process again, unless it died
            ...

Models and tensors go through shared memory, which this side makes, seals at its size and reads once.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from msgspec.structs import replace

from edgeseg.engine_options import check_options
from edgeseg.errors import InferenceError
from edgeseg.evidence import Execution, LayerTime
from edgeseg.manifest import encode_artifact
from edgeseg.runtimes.isolated_messages import (
    DTYPES,
    Collect,
    Done,
    Executed,
    Inspect,
    Load,
    Loaded,
    Ready,
    Reply,
    Run,
    Tensor,
    TooSmall,
    Unload,
    offsets,
    view,
)
from edgeseg.runtimes.isolated_process import EngineProcess, clean
from edgeseg.runtimes.runtime import EngineSession, fits, read_file
from edgeseg.runtimes.sandbox import Limits
from edgeseg.types import Array, Model, TensorSpec

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ALL_SEALS = _SIZE_SEALS | fcntl.F_SEAL_WRITE
_MB = 1 << 20


class IsolatedWorker:
    """A child process with one engine, in a sandbox: it loads one model after the other, one at a time.

    The process starts at once and imports its engine while the caller goes on. After a crash or a timeout it is dead
    and everything raises InferenceError: make another worker.

    Args:
        runtime: a name of `edgeseg.plugins.RUNTIMES`.
        limits: what the process may use; None for the defaults.

    Raises:
        InferenceError: no process can be started, or this is not Linux.
    """

    def __init__(self, runtime: str, limits: Limits | None = None) -> None:
        self._process = EngineProcess(runtime, limits or Limits())
        self._ready: Ready | None = None
        self._session: IsolatedSession | None = None

    @property
    def version(self) -> str:
        """The engine's version, as the child told before it saw a model.

        Raises MissingDependency where the engine is not installed, EngineCrashed or EngineTimeout where it does not
        start.
        """
        return clean(self._started().version)

    @property
    def sandbox(self) -> tuple[str, ...]:
        """What was applied, as in "memory 1024 MB", "files by landlock"; raises as `version`."""
        return tuple(clean(name) for name in self._started().sandbox)

    @property
    def pid(self) -> int:
        """Of the child process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether another model can be loaded; False after a crash, a timeout or `close`."""
        return self._process.alive

    def load(
        self,
        artifact: Path | Model,
        *,
        device: str = "auto",
        threads: int | None = None,
        options: Mapping[str, object] | None = None,
        last: bool = False,
    ) -> IsolatedSession:
        """Load a model in the child, as `Runtime.load` would here.

        Args:
            artifact: a file of one of the runtime's formats, or the files of an artifact in memory.
            device: of the runtime, or "auto". The sandbox hides device files, so that only the CPU is there.
            threads: CPU threads; None leaves it to the engine.
            options: what else to tell the engine, as `Runtime.load`.
            last: True to end the process when the session is closed.

        Raises:
            InferenceError: the file is missing or not accepted, its memory would be more than the limit, the worker
                has a session that is open, or it is dead.
            EngineCrashed, EngineTimeout: the child died of it.
            BadInput, NoSuchDevice, MissingDependency: as `Runtime.load`.
        """
        if self.alive and self._session is not None and not self._session.closed:
            raise InferenceError("the worker has an open session, close it before the next model is loaded")
        model = read_file(artifact) if isinstance(artifact, Path) else artifact
        self._started()
        self._process.forget_output()
        entry = encode_artifact(model.artifact) if model.artifact else b""
        sizes = tuple(len(file) for file in model.files)
        told = check_options(self._process.runtime, options or {})
        request = Load(model.name, model.format, sizes, len(entry), device, threads, dict(told))
        descriptor = _sealed_copy((*model.files, entry))
        try:
            reply = self._process.ask(request, f"loading {model.name}", self._process.limits.load_s, descriptor)
        finally:
            os.close(descriptor)
        self._session = IsolatedSession(self, self._process, model.name, self._checked(reply), last)
        return self._session

    def close(self) -> None:
        """End the process; calling it twice is allowed."""
        self._process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _started(self) -> Ready:
        if self._ready is None:
            reply = self._process.first(self._process.limits.load_s)
            if not isinstance(reply, Ready):
                raise self._process.nonsense("starting", type(reply).__name__)
            self._ready = reply
        return self._ready

    def _checked(self, reply: Reply) -> Loaded:
        if not isinstance(reply, Loaded):
            raise self._process.nonsense("loading", type(reply).__name__)
        for spec in (*reply.inputs, *reply.outputs):
            if spec.dtype not in DTYPES or len(spec.shape) > 16 or not all(-1 <= side < 1 << 40 for side in spec.shape):
                raise self._process.nonsense("loading", f"a tensor of {clean(spec.dtype)} {spec.shape[:16]}")
        return reply


class IsolatedSession(EngineSession):
    """A model loaded in a worker; made by `IsolatedWorker.load`.

    Attributes:
        sandbox: what holds for the process that the engine runs in.
    """

    def __init__(self, worker: IsolatedWorker, process: EngineProcess, name: str, loaded: Loaded, last: bool) -> None:
        super().__init__(loaded.inputs, loaded.outputs, clean(loaded.device))
        self.sandbox = worker.sandbox
        self._process = process
        self._name = name
        self._last = last
        self._exchange: _Exchange | None = None
        self._room = 0

    @property
    def pid(self) -> int:
        """Of the process that the engine runs in."""
        return self._process.pid

    def abort(self) -> None:
        """End the process, from any thread: a run that waits for it raises EngineCrashed."""
        self._process.abort()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def profile(self, feeds: Mapping[str, Array], runs: int) -> tuple[LayerTime, ...]:
        """Raise InferenceError: times per layer are for a model that is trusted."""
        raise InferenceError("an isolated engine is not profiled: load the artifact in this process, without isolate")

    def _memory(self) -> dict[str, Array]:
        """Shared with the child: what is written there is not copied on this side."""
        exchange = self._exchange_for(tuple(Tensor(spec.dtype, spec.shape) for spec in self.inputs))
        return {spec.name: array for spec, array in zip(self.inputs, exchange.inputs, strict=True)}

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        arrays = [feeds[spec.name] for spec in self.inputs]
        exchange = self._exchange
        if exchange is None or not exchange.fits(arrays):
            exchange = self._exchange_for(tuple(Tensor.of(array) for array in arrays))
        exchange.fill(arrays)
        reply = self._run(exchange)
        if isinstance(reply, TooSmall):
            exchange, reply = self._collect(reply.size)
        return self._results(exchange, reply)

    def _run(self, exchange: _Exchange) -> Reply:
        """The shared memory goes with the first request to use it."""
        if exchange.known:
            return self._ask(exchange.request)
        exchange.known = True
        return self._ask(replace(exchange.request, memory=exchange.size), exchange.descriptor)

    def _exchange_for(self, tensors: tuple[Tensor, ...]) -> _Exchange:
        """New shared memory for inputs of these shapes."""
        end = offsets(tensors)[1]
        size = max(offsets(_expected(self.outputs), end)[1], end + self._room)
        self._exchange, self._own = self._new_exchange(tensors, size), None
        return self._exchange

    def _collect(self, size: int) -> tuple[_Exchange, Reply]:
        """Give the child the room for its outputs that it asks for, and more from the next run on."""
        self._exchange, self._own, self._room = None, None, size
        exchange = self._new_exchange((), size)
        return exchange, self._ask(Collect(size), exchange.descriptor)

    def _new_exchange(self, tensors: tuple[Tensor, ...], size: int) -> _Exchange:
        limit_mb = self._process.limits.memory_mb
        if size > limit_mb * _MB:
            needed = f"{size / _MB:.0f} MB for inputs and outputs"
            raise InferenceError(f"{self._name} needs {needed}, the limit is {limit_mb} MB of memory")
        return _Exchange(tensors, size)

    def _ask(self, request: Run | Collect, memory: int | None = None) -> Reply:
        return self._process.ask(request, f"running {self._name}", self._process.limits.run_s, memory)

    def _results(self, exchange: _Exchange, reply: Reply) -> Mapping[str, Array]:
        if not isinstance(reply, Done) or len(reply.outputs) != len(self.outputs):
            raise self._process.nonsense("running", type(reply).__name__)
        for tensor, spec in zip(reply.outputs, self.outputs, strict=True):
            if tensor.dtype != spec.dtype or not fits(tensor.shape, spec.shape):
                raise InferenceError(
                    f"{self._name} gave {clean(spec.name)} as {clean(tensor.dtype)} {tensor.shape}, "
                    f"expected {spec.dtype} {spec.shape}: convert it again"
                )
        try:
            arrays = exchange.outputs(reply.outputs)
        except ValueError as error:
            raise self._process.nonsense("running", str(error)) from error
        # Copies: what was looked at once cannot change any more.
        return {spec.name: array.copy() for spec, array in zip(self.outputs, arrays, strict=True)}

    def _inspect(self) -> Execution:
        reply = self._process.ask(Inspect(), f"inspecting {self._name}", self._process.limits.load_s)
        if not isinstance(reply, Executed):
            raise self._process.nonsense("inspecting", type(reply).__name__)
        return reply.execution

    def _release(self) -> None:
        self._exchange = None
        if self._last:
            self._process.end()
        elif self._process.alive:
            self._unload()

    def _unload(self) -> None:
        try:
            self._process.ask(Unload(), f"closing {self._name}", self._process.limits.load_s)
        except InferenceError:
            self._process.end()


class _Exchange:
    """Shared memory of a size that nobody can change, with inputs of some shapes and the outputs behind them.

    Attributes:
        inputs: views of the inputs.
        known: whether the child has it.
    """

    def __init__(self, tensors: tuple[Tensor, ...], size: int) -> None:
        self.request = Run(tensors, 0)
        self.size = max(size, 1)
        self.descriptor = _memory(self.size)
        weakref.finalize(self, os.close, self.descriptor)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SIZE_SEALS)
        self._memory = mmap.mmap(self.descriptor, self.size)
        places, self._end = offsets(tensors)
        self.known = False
        self.inputs = [view(t, self._memory, p) for t, p in zip(tensors, places, strict=True)]
        self._found: tuple[tuple[Tensor, ...], list[Array]] = ((), [])

    def fits(self, arrays: list[Array]) -> bool:
        """Whether inputs have the shapes that this was made for."""
        return [a.shape for a in arrays] == [a.shape for a in self.inputs]

    def fill(self, arrays: list[Array]) -> None:
        """Copy the inputs that are not there already."""
        for place, array in zip(self.inputs, arrays, strict=True):
            if array is not place:
                np.copyto(place, array)

    def outputs(self, tensors: tuple[Tensor, ...]) -> list[Array]:
        """Views of the outputs, which the child may still write. Raises ValueError where they are not inside."""
        if tensors != self._found[0]:
            places, end = offsets(tensors, self._end)
            if end > self.size:
                raise ValueError(f"{end} bytes of outputs in {self.size}")
            self._found = (tensors, [view(t, self._memory, p) for t, p in zip(tensors, places, strict=True)])
        return self._found[1]


def _expected(specs: tuple[TensorSpec, ...]) -> list[Tensor]:
    """What the outputs will be where that is known; those of unknown size are made room for later."""
    return [Tensor(spec.dtype, spec.shape) for spec in specs if min(spec.shape, default=1) >= 0]


def _sealed_copy(parts: tuple[bytes, ...]) -> int:
    """Shared memory with some bytes, which nobody can change any more; returns its descriptor."""
    descriptor = _memory(0)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _ALL_SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _memory(size: int) -> int:
    descriptor = os.memfd_create("edgeseg", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor
