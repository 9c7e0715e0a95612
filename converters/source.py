"""Load a trained model from any of the forms a user may have it in, as one torch module with its preprocessing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.converters.channels import fit_channels
from edgeseg.converters.checkpoint import file_sha256, load_checkpoint
from edgeseg.converters.exported_program import load_exported_program
from edgeseg.converters.torch_from_onnx import load_onnx
from edgeseg.converters.weights import first_line, read_tensors, shortened
from edgeseg.errors import BadInput, ConversionError, UnsupportedModel
from edgeseg.scan_area import check_shares
from edgeseg.types import Array, Preprocess, ScanArea


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source does not say of itself; None takes what the source says, or the default.

    Attributes:
        weights: file for a factory's module.
        size: (height, width) of the network's input; 256x256 where nothing says it.
        channels: 1 or 3; the first convolution's where nothing says it.
        mean, std: of pixels scaled to [0, 1]; 0 and 1 where nothing says it.
        classes: names, index 0 is the background.
        scan_area: the part of a frame that the network sees; all of it where nothing says it.
    """

    weights: Path | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    scan_area: ScanArea | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A trained segmenter.

    Attributes:
        name: for people.
        network: maps raw pixels [1, C, H, W] float32 (0..255) to logits [1, L, h, w] float32; normalisation inside.
        preprocess: size, channels, normalisation and scan area.
        classes: names, index 0 is the background.
        origin: kind, hashes and architecture, for the manifest.
        training: the training record, where known.
    """

    name: str
    network: Normalised
    preprocess: Preprocess
    classes: tuple[str, ...]
    origin: dict[str, Any]
    training: dict[str, Any]

    @property
    def example(self) -> Tensor:
        """A mid-gray input [1, C, H, W] float32."""
        return torch.full((1, self.preprocess.channels, self.preprocess.height, self.preprocess.width), 127.5)

    @property
    def normalised_example(self) -> Tensor:
        """An input [1, C, H, W] float32 for the module behind the normalisation."""
        return torch.zeros(self.example.shape)

    def run(self, pixels: Array) -> Array:
        """Logits [1, L, h, w] float32 for raw pixels [1, C, H, W] float32, by torch."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(pixels)).numpy()  # type: ignore[no-any-return]


class Normalised(nn.Module):
    """`(pixel / 255 - mean) / std` in front of a module, and its logits picked out of what it returns."""

    module: nn.Module
    scale: Tensor
    shift: Tensor

    def __init__(self, module: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.module = module
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.contiguous()  # litert-torch takes channels-last weights for something else
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std))
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def train(self, mode: bool = True) -> Normalised:
        """Stay in inference mode: exported graphs have no other and refuse to be asked."""
        self.training = False
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Raw pixels [N, C, H, W] float32 to logits [N, L, h, w]."""
        return logits_of(self.module(pixels * self.scale + self.shift))


def logits_of(output: Any) -> Tensor:
    """The logits in what a segmenter returns: a tensor, a dictionary (its "out" first), or the first of several."""
    if isinstance(output, dict):
        output = output["out"] if "out" in output else next(iter(output.values()))
    return output[0] if isinstance(output, tuple | list) else output  # type: ignore[no-any-return]


def load_source(spec: str, options: SourceOptions | None = None) -> Source:
    """Load a source.

    Args:
        spec: an edgeseg checkpoint (.safetensors), a torch.export archive (.pt2), an .onnx, or
            `package.module:factory`, where calling the factory without arguments returns the module.
        options: what the source does not say of itself.

    Returns:
        The source, run once: its output is known to be finite logits of the right rank.

    Raises:
        ConversionError: for a missing or corrupt file or factory.
        UnsupportedModel: for a model whose output is not logits [1, L, h, w], or with an operator that is not known.
        BadInput: for options that contradict the model.
    """
    options = options or SourceOptions()
    suffix = Path(spec).suffix
    readers: dict[str, Callable[[Path, SourceOptions], Source]] = {
        ".safetensors": _from_checkpoint,
        ".pt2": _from_exported_program,
        ".onnx": _from_onnx,
    }
    if suffix in readers:
        if not Path(spec).is_file():
            raise ConversionError(f"{spec} does not exist, expected a {suffix} file")
        source = readers[suffix](Path(spec), options)
    elif ":" in spec:
        source = _from_factory(spec, options)
    else:
        raise ConversionError(
            f"{spec!r} is no source, expected a .safetensors, .pt2 or .onnx file, or package.module:factory"
        )
    if options.scan_area is not None:
        check_shares(options.scan_area)
        source = replace(source, preprocess=replace(source.preprocess, scan_area=options.scan_area))
    return _checked(source, options.classes)


def _from_checkpoint(path: Path, options: SourceOptions) -> Source:
    module, info = load_checkpoint(path)
    if options.size is not None:
        info = replace(info, preprocess=replace(info.preprocess, height=options.size[0], width=options.size[1]))
    origin = {"kind": "checkpoint", "file": path.name, "sha256": file_sha256(path), "architecture": info.architecture}
    classes = options.classes or info.classes
    return _source(info.architecture["name"], module, info.preprocess, classes, origin, info.training)


def _from_factory(spec: str, options: SourceOptions) -> Source:
    module = _call_factory(spec)
    origin: dict[str, Any] = {"kind": "factory", "factory": spec}
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    preprocess = _preprocess(options, (256, 256), first.in_channels if first else 1)
    if options.weights is not None:
        _load_weights(module, options.weights, spec, preprocess)
        origin |= {"file": options.weights.name, "sha256": file_sha256(options.weights)}
    return _source(spec.partition(":")[2], module, preprocess, options.classes or (), origin)


def _load_weights(module: nn.Module, path: Path, spec: str, preprocess: Preprocess) -> None:
    """Load weights that fit, or whose only difference is that channels were pruned."""
    tensors = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        example = torch.zeros(1, preprocess.channels, preprocess.height, preprocess.width)
        try:
            with torch.no_grad():
                dense = logits_of(module(example))
                fit_channels(module, tensors)
                module.load_state_dict(tensors)
                fits = logits_of(module(example)).shape == dense.shape
        except (ConversionError, RuntimeError):
            fits = False
        if not fits:
            raise ConversionError(f"{path} does not fit {spec}: {shortened(error)}") from error


def _call_factory(spec: str) -> nn.Module:
    module_name, _, attribute = spec.partition(":")
    # As `python -m` does: a module in the current folder is a module.
    sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        module = factory() if not isinstance(factory, nn.Module) else factory
    except Exception as error:
        raise ConversionError(f"{spec} cannot be built: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        raise ConversionError(f"{spec} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module.eval()


def _from_exported_program(path: Path, options: SourceOptions) -> Source:
    module, shape = load_exported_program(path)
    return _from_graph(path, "torch.export", module, shape, options)


def _from_onnx(path: Path, options: SourceOptions) -> Source:
    module, shape = load_onnx(path, options.size)
    return _from_graph(path, "onnx", module, shape, options)


def _from_graph(
    path: Path, kind: str, module: nn.Module, shape: tuple[int, int, int], options: SourceOptions
) -> Source:
    channels, height, width = shape
    if options.size not in (None, (height, width)):
        raise BadInput(f"{path} was exported for {height}x{width}, it cannot run at {options.size}: drop --size")
    preprocess = _preprocess(options, (height, width), channels)
    origin = {"kind": kind, "file": path.name, "sha256": file_sha256(path)}
    return _source(path.stem, module, preprocess, options.classes or (), origin)


def _preprocess(options: SourceOptions, size: tuple[int, int], channels: int) -> Preprocess:
    height, width = options.size or size
    channels = options.channels or channels
    mean = options.mean if options.mean is not None else (0.0,) * channels
    std = options.std if options.std is not None else (1.0,) * channels
    if channels not in (1, 3):
        raise UnsupportedModel(f"the model takes {channels} channels, expected 1 (gray) or 3 (RGB)")
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise BadInput(f"mean {mean} and std {std} must have {channels} figures each, std above 0")
    return Preprocess(height, width, channels, mean, std)


def _source(
    name: str,
    module: nn.Module,
    preprocess: Preprocess,
    classes: tuple[str, ...],
    origin: dict[str, Any],
    training: dict[str, Any] | None = None,
) -> Source:
    return Source(name, Normalised(module, preprocess).train(False), preprocess, classes, origin, training or {})


def _checked(source: Source, classes: tuple[str, ...] | None) -> Source:
    """Run once and compare what comes out with what a segmenter must give."""
    want = f"[1, {source.preprocess.channels}, {source.preprocess.height}, {source.preprocess.width}]"
    try:
        output = source.run(source.example.numpy())
    except Exception as error:
        raise UnsupportedModel(f"{source.name} fails on an input {want} float32: {first_line(error)}") from error
    if not hasattr(output, "ndim") or output.ndim != 4 or output.shape[0] != 1 or output.dtype.kind != "f":
        got = getattr(output, "shape", type(output).__name__)
        raise UnsupportedModel(f"{source.name} returns {got}, expected float logits [1, L, h, w]")
    logits = output.shape[1]
    if not torch.isfinite(torch.from_numpy(output)).all():
        raise UnsupportedModel(f"{source.name} returns NaN or infinity on a mid-gray frame: are its weights loaded?")
    foreground = ["foreground"] if logits <= 2 else [f"class{i}" for i in range(1, logits)]
    names = source.classes or ("background", *foreground)
    if not (logits == len(names) or (logits == 1 and len(names) == 2)):
        raise BadInput(
            f"{source.name} returns {logits} logits for {len(names)} classes ({', '.join(names)}): see --classes"
        )
    return replace(source, classes=tuple(names))
