"""How the picture looks: colours, markers, sizes."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's blue and vermillion are told apart by every kind of colour vision. No two are equal, so that the page
# can exchange each of them for its own.
COLOURS = {
    "paper": "#fffffe",
    "ink": "#1b1f24",
    "faint": "#59636e",
    "grid": "#e3e7eb",
    "gray": "#a3abb4",
    "good": "#0072b2",
    "bad": "#d55e00",
    "shade": "#fcf0e8",
}
# By runtime and by precision: how matplotlib draws it, and what the legend calls it.
MARKERS = {
    "openvino": ("o", "OpenVINO"),
    "onnxruntime": ("s", "ONNX Runtime"),
    "litert": ("^", "LiteRT"),
    "torch": ("D", "torch eager"),
    "torch-channels-last": ("d", "torch channels-last, fused"),
    "fake": ("P", "fake"),
}
FILLS = {"int8": ("full", "int8"), "fp16": ("left", "fp16"), "fp32": ("bottom", "fp32")}
COSTS = {"p50_ms": "latency of the engine alone, median, ms", "size_mb": "size, MB"}
SIZE, DOMINATED_SIZE = 10.0, 6.5  # of markers, in points
DPI = 150
PIXELS = DPI / 72  # a point
STYLE: dict[Any, Any] = {  # matplotlib types its keys as a literal of 300 names
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": COLOURS["faint"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["faint"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.color": COLOURS["faint"],
    "ytick.labelcolor": COLOURS["ink"],
    "figure.facecolor": COLOURS["paper"],
    "axes.facecolor": COLOURS["paper"],
    "svg.fonttype": "path",
    "svg.hashsalt": "edgeseg",
}
