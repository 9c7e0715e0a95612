"""Times per layer from OpenVINO's performance counters, and convolutions wide enough to reach the core's peak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np

from edgeseg.evidence import LayerTime
from edgeseg.runtimes.macs import convolution_macs, product_macs
from edgeseg.types import Array

_WARM_UPS = 5
_PRODUCTS = frozenset({"MatMul", "FullyConnected"})
_WIDE = ((256, 8), (128, 16))  # channels and side: weights and activations together stay in a core's L2
_KERNEL = 3
_DEPTH = 3


def layer_times(
    compiled: Any, precisions: Mapping[str, str], inputs: list[Array], runs: int
) -> tuple[LayerTime, ...]:
    """Run a compiled model and read its counters.

    Args:
        compiled: a model compiled with PERF_COUNT.
        precisions: edgeseg's name of each of OpenVINO's.
        inputs: in the model's order.
        runs: how many runs the medians are of, after a few that do not count.

    Returns:
        Every node that was executed, in order; conversions too, because they take time.
    """
    request = compiled.create_infer_request()
    for _ in range(_WARM_UPS):
        request.infer(inputs)
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for _ in range(runs):
        request.infer(inputs)
        for info in request.get_profiling_info():
            if info.status == info.Status.EXECUTED:
                times.setdefault(info.node_name, []).append(info.real_time.total_seconds() * 1e6)
                kinds[info.node_name] = info.node_type
    nodes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ordered_ops()}
    return tuple(
        _layer(name, kinds[name], nodes.get(name), median(measured), precisions) for name, measured in times.items()
    )


def wide_models(openvino: Any, int8: bool) -> Iterator[tuple[Any, Array]]:
    """Models of a few wide 3x3 convolutions each, and their inputs [1, C, S, S] float32.

    int8 by fake quantization on both sides, which the engine turns into its int8 kernels as it does for an artifact.
    """
    random = np.random.default_rng(0)
    for channels, side in _WIDE:
        shape = (channels, channels, _KERNEL, _KERNEL)
        weights = [random.uniform(-1, 1, shape).astype(np.float32) / channels for _ in range(_DEPTH)]
        yield _wide_model(openvino, weights, side, int8), np.ones((1, channels, side, side), np.float32)


def _wide_model(openvino: Any, weights: list[Array], side: int, int8: bool) -> Any:
    ops = openvino.opset13

    def quantized(node: Any, low: float, high: float, levels: int) -> Any:
        edges = np.float32(low), np.float32(high)
        return ops.fake_quantize(node, *edges, *edges, levels) if int8 else node

    image = node = ops.parameter([1, weights[0].shape[1], side, side], np.float32)
    pad = [_KERNEL // 2] * 2
    for values in weights:
        limit = float(np.abs(values).max())
        kernel = quantized(ops.constant(values), -limit, limit, 255)
        node = ops.relu(ops.convolution(quantized(node, 0.0, 2.55, 256), kernel, [1, 1], pad, pad, [1, 1]))
    return openvino.Model([node], [image], "wide")


def _layer(name: str, kind: str, node: Any, time_us: float, precisions: Mapping[str, str]) -> LayerTime:
    if node is None:
        return LayerTime(name, kind, "unknown", time_us)
    precision = node.get_rt_info()["runtimePrecision"].astype(str)
    return LayerTime(name, kind, precisions.get(precision, precision), time_us, _macs(kind, node))


def _macs(kind: str, node: Any) -> int | None:
    convolution = "convolution" in kind.lower()
    if not convolution and kind not in _PRODUCTS:
        return None
    shapes = [port.get_partial_shape() for port in (*node.inputs()[:2], node.output(0))]
    if any(shape.is_dynamic for shape in shapes):
        return None
    inputs, weights, outputs = (tuple(shape.to_shape()) for shape in shapes)
    if not convolution:
        return product_macs(inputs, outputs)
    return convolution_macs(inputs, weights, outputs, transposed="Backprop" in kind or kind.startswith("Deconv"))
