"""Times per layer from ONNX Runtime's profile.

The profile tells the shapes of a layer, but not of weights that the engine has repacked, and the channels of float
convolutions are padded to whole vectors. So shapes come from a second session that repacks nothing, matched
convolution by convolution.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from edgeseg.evidence import LayerTime
from edgeseg.runtimes.macs import Shape, convolution_macs, product_macs
from edgeseg.types import Array

Event = dict[str, Any]
Create = Callable[..., Any]
"""A session from its options, and from names of graph optimizers to leave out (`disabled_optimizers`)."""

_WARM_UPS = 5
_SUFFIX = "_kernel_time"
_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "QGemm"})
_PADS_CHANNELS = "NchwcTransformer"
_WIDEST_VECTOR = 16  # float32 values in 512 bits


def layer_times(
    options: Callable[[], Any],
    create: Create,
    precision: Callable[[Event], str],
    feeds: Mapping[str, Array],
    runs: int,
) -> tuple[LayerTime, ...]:
    """Profile two short-lived sessions, one for the times and one for the shapes.

    Args:
        options: makes the session options of an artifact.
        create: makes a session of the artifact.
        precision: of an executed node.
        feeds: the inputs by name.
        runs: how many runs the medians are of, after a few that do not count.

    Returns:
        Every executed node in order; conversions too, because they take time.
    """
    nodes: dict[str, list[Event]] = {}
    for event in node_events(options(), create, feeds, _WARM_UPS + runs):
        nodes.setdefault(event["args"]["node_index"], []).append(event)
    plain = options()
    plain.add_session_config_entry("session.disable_prepacking", "1")
    shapes = node_events(plain, lambda o: create(o, disabled_optimizers=[_PADS_CHANNELS]), feeds, 1)
    macs = _macs([repeated[0] for repeated in nodes.values()], shapes)
    return tuple(
        LayerTime(
            name=repeated[0]["name"].removesuffix(_SUFFIX),
            kind=repeated[0]["args"]["op_name"],
            precision=precision(repeated[0]),
            time_us=float(median(event["dur"] for event in repeated[_WARM_UPS:])),
            macs=macs.get(index),
        )
        for index, repeated in nodes.items()
    )


def node_events(options: Any, create: Create, feeds: Mapping[str, Array], runs: int) -> list[Event]:
    """Run a session with profiling, its file in a temporary folder: one event for each node of each run, in order."""
    with tempfile.TemporaryDirectory(prefix="edgeseg-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = create(options)
        for _ in range(runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return [event for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]


def input_shapes(event: Event) -> list[Shape]:
    """Shapes of the inputs of a node, in its order."""
    return [shape for tensor in event["args"]["input_type_shape"] for shape in tensor.values()]


def _macs(timed: Sequence[Event], shapes: Sequence[Event]) -> dict[str, int]:
    """Multiply-accumulates by node index; empty where the two sessions do not have the same convolutions."""
    ours, theirs = ([e for e in events if _multiplies(e["args"]["op_name"])] for events in (timed, shapes))
    if len(ours) != len(theirs) or not all(map(_same, ours, theirs)):
        return {}
    return {a["args"]["node_index"]: _event_macs(b) for a, b in zip(ours, theirs, strict=True)}


def _multiplies(kind: str) -> bool:
    return "Conv" in kind or kind in _PRODUCTS


def _same(timed: Event, plain: Event) -> bool:
    a, b = _output_shape(timed), _output_shape(plain)
    padded = len(a) == len(b) > 2 and 0 <= a[1] - b[1] < _WIDEST_VECTOR and [a[0], *a[2:]] == [b[0], *b[2:]]
    return a == b or padded


def _event_macs(event: Event) -> int:
    kind, shapes, outputs = event["args"]["op_name"], input_shapes(event), _output_shape(event)
    if kind in _PRODUCTS:
        return product_macs(shapes[0], outputs)
    # Image, scale and zero point come before the weights of a quantized convolution.
    weights = shapes[3 if kind.startswith("QLinear") else 1]
    return convolution_macs(shapes[0], weights, outputs, transposed="Transpose" in kind)


def _output_shape(event: Event) -> list[int]:
    shape: list[int] = next(iter(event["args"]["output_type_shape"][0].values()))
    return shape
