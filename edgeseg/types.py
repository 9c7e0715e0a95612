"""The words that every part of edgeseg shares: frozen dataclasses and string enums, no behaviour beyond themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.evidence import Baseline, Execution, Gates, Parity, Provenance

Array = NDArray[Any]
Frame = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Logits = NDArray[np.float32]


class Format(StrEnum):
    """The file format of an artifact."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TFLITE = "tflite"


class Precision(StrEnum):
    """The arithmetic an artifact was made for."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Layout(StrEnum):
    """The order of a 4-D tensor's axes: batch, channels, height, width."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Interpolation(StrEnum):
    """How a frame is brought to the network's size; OpenCV's INTER_LINEAR and INTER_AREA."""

    LINEAR = "linear"
    AREA = "area"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a session. `dtype` is a numpy dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: Layout = Layout.NCHW


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a frame in whole pixels: its left and top edge, its width and height."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ScanArea:
    """Which part of a frame the network sees: a fixed rectangle, or what `edgeseg.scan_area` detects.

    Attributes:
        detect: whether the area is looked for in the picture; the figures below are not used then.
        left, top, width, height: shares of the frame's width or height, 0 to 1.
    """

    detect: bool = False
    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What happens to a frame before the first layer.

    Outside the graph: the cut to the scan area, gray or RGB conversion and the resize to `height` x `width`. Inside
    every exported graph: `(pixel / 255 - mean) / std`, so that training and device cannot disagree.

    Attributes:
        height, width: the network's input size in pixels.
        channels: 1 (gray) or 3 (RGB).
        mean, std: one figure per channel, for pixels scaled to [0, 1].
        interpolation: how the frame is resized.
        scan_area: the part of the frame that is used; None for all of it.
    """

    height: int
    width: int
    channels: int = 1
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: Interpolation = Interpolation.LINEAR
    scan_area: ScanArea | None = None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a bundle: its path (relative to the folder in the manifest, absolute once opened), hash and size."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One converted model: what it is, its files (the first one is what the engine is given) and its evidence.

    Attributes:
        parity: the difference from the fp32 network it was made of.
        against_source: the difference from the source, where that network was distilled or pruned from it.
        baselines: what it did on each runtime at conversion, with the tolerances of the self-test.
        preprocess_sha256: of the canonical form of the preprocessing it was measured with.
    """

    format: Format
    precision: Precision
    files: tuple[FileRecord, ...]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parity: Parity | None = None
    against_source: Parity | None = None
    baselines: tuple[Baseline, ...] = ()
    preprocess_sha256: str = ""

    @property
    def name(self) -> str:
        """For people and file names, as in `openvino-int8`."""
        return f"{self.format}-{self.precision}"

    @property
    def path(self) -> Path:
        """The file the engine is given (for OpenVINO the .xml, whose .bin lies beside it)."""
        return self.files[0].path

    @property
    def sha256(self) -> str:
        """SHA-256 of the file at `path`."""
        return self.files[0].sha256

    @property
    def size_bytes(self) -> int:
        """Size of all files of this artifact."""
        return sum(f.size_bytes for f in self.files)


@dataclass(frozen=True, slots=True)
class Model:
    """The files of one artifact in memory: what was checked, so that an engine is given nothing else.

    Attributes:
        name: for messages, as in `openvino-int8` or a file name.
        format: of the files.
        files: their content; the first one is the model, the second one OpenVINO's weights.
        artifact: what the manifest says of it; None for a file that belongs to no bundle.
    """

    name: str
    format: Format
    files: tuple[bytes, ...] = field(repr=False)
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An artifact that was made, failed its gate and stayed out of the bundle."""

    format: Format
    precision: Precision
    reason: str
    parity: Parity | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """One real frame with what the source made of it.

    Attributes:
        frame: the frame, PNG.
        mask: the source's mask at the frame's own size, PNG of class indices.
        logits: the source's logits [1, C, h, w] float32, .npy.
        input: the network input that was made of the frame, [h, w] or [h, w, 3] uint8, PNG; None in schema 1.
    """

    frame: FileRecord
    mask: FileRecord
    logits: FileRecord
    input: FileRecord | None = None

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """All of them."""
        found = (self.frame, self.mask, self.logits)
        return found if self.input is None else (*found, self.input)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself: the content of its manifest.json.

    Attributes:
        min_runtimes: for each runtime the lowest version of its engine that edgeseg was tested with.
        digest: SHA-256 of the canonical form (RFC 8785) of all the rest, which tells damage to the manifest itself;
            empty in schema 1.
    """

    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    artifacts: tuple[Artifact, ...] = ()
    refused: tuple[Refusal, ...] = ()
    golden: tuple[Golden, ...] = ()
    gates: Gates = field(default_factory=Gates)
    provenance: Provenance = field(default_factory=Provenance)
    min_runtimes: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    schema: int = 2


@dataclass(frozen=True, slots=True)
class Signer:
    """Who vouched for a manifest, and when, by a signature that was checked.

    Attributes:
        key_id: SHA-256 of the public key.
        name: the key's, from the trusted file of it, not from the bundle.
        signed_at: UTC, as in 2026-01-31T12:00:00Z; the signature covers it.
    """

    key_id: str
    name: str
    signed_at: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its folder and its manifest, whose paths are absolute and whose hashes were checked.

    `signer` is None where no signature was asked for, even if there is one.
    """

    path: Path
    manifest: Manifest
    signer: Signer | None = None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The artifacts that passed their gates."""
        return self.manifest.artifacts

    @property
    def preprocess(self) -> Preprocess:
        """The one definition of what happens to a frame before the network."""
        return self.manifest.preprocess

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; index 0 is the background."""
        return self.manifest.classes


class Session(Protocol):
    """A loaded artifact on a device, used by one thread at a time; a context manager.

    Attributes:
        inputs, outputs: specs in the artifact's own layout.
        device: the one really used, never "auto".
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102

    def feeds(self) -> Mapping[str, Array]:
        """Memory to write the inputs into: `run` with this mapping copies nothing but what the engine itself does.

        Arrays of the names, shapes and dtypes of `inputs`, C-contiguous; empty where a shape is not fixed. Ask for them
        before each run: what they hold after one is anything. They outlive the session.

        Raises InferenceError when the session is closed.
        """
        ...

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once. The arrays returned may be overwritten by the next call.

        Raises BadInput for a missing or unknown name, a wrong shape or dtype; InferenceError when the engine fails
        or the session is closed.
        """
        ...

    def execution(self) -> Execution:
        """What the engine really runs for this artifact."""
        ...

    def close(self) -> None:
        """Free the engine's memory; calling it twice is allowed."""
        ...

    def __enter__(self) -> Session: ...
    def __exit__(self, *exc: object) -> None: ...


class Runtime(Protocol):
    """An engine on this machine; stateless, cheap to construct."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[Format]]

    def version(self) -> str:
        """The engine's version. Raises MissingDependency where the engine is not installed."""
        ...

    def devices(self) -> tuple[str, ...]:
        """Devices proven usable here by running a small model, best first."""
        ...

    def load(
        self,
        artifact: Path | Model,
        *,
        device: str = "auto",
        threads: int | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Session:
        """Load a model: a file, or the files of an artifact in memory (`edgeseg.bundle.read_model`).

        Raises BadInput for an option that the engine does not know (`edgeseg.engine_options`), NoSuchDevice for a
        device that does not exist or work here, InferenceError for a file that the engine does not accept,
        MissingDependency where the engine is not installed.
        """
        ...
