"""Give a freshly built network the channel counts of pruned weights, so that they can be loaded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgeseg.errors import ConversionError

Shape = tuple[int, ...]


def fit_channels(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make layers as narrow as their tensors and load these; layers whose shapes agree already are left alone.

    Changes convolutions, transposed convolutions, linear layers, batch and instance norms and PReLU: their weights,
    channel counts and, for depthwise convolutions, groups.

    Args:
        module: the dense network; unchanged where this raises.
        tensors: a state dict of the same network with fewer channels.

    Raises:
        ConversionError: for a missing tensor, or one that is not the layer's own with fewer channels; names the layer.
    """
    changes = [
        (layer, _attributes(name or type(layer).__name__, layer, own), own)
        for name, layer in module.named_modules()
        if (own := _own_tensors(name, layer, tensors))
    ]
    for layer, attributes, own in changes:
        for attribute, value in attributes.items():
            setattr(layer, attribute, value)
        for key, tensor in own.items():
            old = getattr(layer, key)
            value = tensor.detach().to(old.device, old.dtype, copy=True)
            setattr(layer, key, nn.Parameter(value, old.requires_grad) if key in layer._parameters else value)


def _own_tensors(name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors for a layer's own weights and statistics, by key; empty where all shapes agree."""
    own: dict[str, Tensor] = {}
    shapes = {key: value.shape for key, value in _weights(layer)}
    for key in shapes:
        path = f"{name}.{key}" if name else key
        if path not in tensors:
            raise ConversionError(f"the weights have no {path}, expected a state dict of the same network")
        own[key] = tensors[path]
    return {} if all(own[key].shape == shape for key, shape in shapes.items()) else own


def _weights(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for key, value in (*layer._parameters.items(), *layer._buffers.items()):
        if value is not None and value.ndim and key not in layer._non_persistent_buffers_set:
            yield key, value


def _attributes(name: str, layer: nn.Module, own: Mapping[str, Tensor]) -> dict[str, Any]:
    """The channel counts that belong to new tensors. Raises ConversionError where they contradict the layer."""
    old = {key: tuple(value.shape) for key, value in _weights(layer)}
    new = {key: tuple(value.shape) for key, value in own.items()}
    narrower = all(
        len(new[k]) == len(old[k]) and all(0 < n <= o for n, o in zip(new[k], old[k], strict=True)) for k in old
    )
    attributes = _counts(layer, new, old) if narrower else None
    if attributes is None:
        key = next(k for k in old if new[k] != old[k])
        raise ConversionError(
            f"{name}: {key} has shape {new[key]}, which is no pruned form of {type(layer).__name__}'s {old[key]}"
        )
    return attributes


def _counts(layer: nn.Module, new: Mapping[str, Shape], old: Mapping[str, Shape]) -> dict[str, Any] | None:
    """The channel counts of tensors that are nowhere larger; None where they are no pruned form of the layer."""
    if isinstance(layer, _ConvNd):
        return _convolution(layer, new, old)
    lengths = {shape[0] for shape in new.values()}
    if len(lengths) > 1:
        return None
    count = lengths.pop()
    if isinstance(layer, nn.Linear):
        return {"out_features": count, "in_features": new["weight"][1]}
    if isinstance(layer, _NormBase):
        return {"num_features": count}
    return {"num_parameters": count} if isinstance(layer, nn.PReLU) else None


def _convolution(layer: _ConvNd, new: Mapping[str, Shape], old: Mapping[str, Shape]) -> dict[str, Any] | None:
    first, second, *kernel = new["weight"]
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    if kernel != list(old["weight"][2:]) or (layer.groups > 1 and not depthwise):
        return None
    if depthwise and layer.groups > 1:
        inputs = outputs = groups = first
    else:
        inputs, outputs = (first, second) if layer.transposed else (second, first)
        groups = 1
    if new.get("bias", (outputs,)) != (outputs,):
        return None
    return {"in_channels": inputs, "out_channels": outputs, "groups": groups}
