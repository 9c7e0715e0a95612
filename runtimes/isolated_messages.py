"""What an isolated engine and the process that started it say to each other: small JSON packets, checked by type.

Models and tensors are not in them. They lie in shared memory, whose descriptor travels with a packet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from mmap import mmap
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from edgeseg.evidence import Execution
from edgeseg.types import Array, Format, TensorSpec

LARGEST_PACKET = 1 << 16
DTYPES = frozenset(
    (
        *("bool", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
_ALIGNMENT = 64
_MOST_AXES = 16

Word = Annotated[str, Meta(max_length=1000)]
Side = Annotated[int, Meta(ge=0, lt=1 << 40)]


class Tensor(Struct, frozen=True, array_like=True):
    """Dtype and shape of an array in shared memory."""

    dtype: Word
    shape: Annotated[tuple[Side, ...], Meta(max_length=_MOST_AXES)]

    @classmethod
    def of(cls, array: Array) -> Tensor:
        """That of a numpy array."""
        return cls(array.dtype.name, array.shape)

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Load(Struct, frozen=True, tag=True):
    """Load the model in the shared memory that comes with this: its files, then its entry in the manifest as JSON."""

    name: str
    format: Format
    sizes: tuple[int, ...]
    entry_size: int
    device: str
    threads: int | None
    options: dict[str, bool | int | str]


class Run(Struct, frozen=True, tag=True):
    """Run on the tensors at the beginning of the shared memory, in the order of the inputs; leave the outputs behind.

    `memory` is the size of the shared memory where it comes with this packet, 0 where the last one is still good.
    """

    feeds: tuple[Tensor, ...]
    memory: int


class Collect(Struct, frozen=True, tag=True):
    """Put the outputs of the last run at the beginning of the larger shared memory that comes with this."""

    memory: int


class Inspect(Struct, frozen=True, tag=True):
    """Say what the engine executes."""


class Unload(Struct, frozen=True, tag=True):
    """Close the session."""


class Ready(Struct, frozen=True, tag=True):
    """The engine is imported, the limits hold, and no byte of a model was seen."""

    version: Word
    sandbox: tuple[Word, ...]


class Loaded(Struct, frozen=True, tag=True):
    """The session is open."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: Word


class Done(Struct, frozen=True, tag=True):
    """The outputs are in shared memory."""

    outputs: tuple[Tensor, ...]


class TooSmall(Struct, frozen=True, tag=True):
    """The outputs are `size` bytes and do not fit."""

    size: Side


class Executed(Struct, frozen=True, tag=True):
    """What the engine executes."""

    execution: Execution


class Unloaded(Struct, frozen=True, tag=True):
    """The session is closed."""


class Failed(Struct, frozen=True, tag=True):
    """An error by the name of its class in `edgeseg.errors`, with what that class is made of."""

    kind: Word
    arguments: Annotated[tuple[Word, ...], Meta(max_length=3)]


Request = Load | Run | Collect | Inspect | Unload
Reply = Ready | Loaded | Done | TooSmall | Executed | Unloaded | Failed


def offsets(tensors: Iterable[Tensor], start: int = 0) -> tuple[list[int], int]:
    """Where each of some tensors lies in shared memory, one after the other, and where the last one ends."""
    found = []
    for tensor in tensors:
        start = -(-start // _ALIGNMENT) * _ALIGNMENT
        found.append(start)
        start += tensor.size
    return found, start


def view(tensor: Tensor, memory: mmap | None, offset: int) -> Array:
    """The array of that dtype and shape which lies at an offset of shared memory."""
    return np.ndarray(tensor.shape, tensor.dtype, memory, offset)
