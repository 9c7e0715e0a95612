"""Name -> class, imported on first use: what is not asked for is never imported."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from edgeseg.errors import BadInput, MissingDependency
from edgeseg.types import Format, Runtime

RUNTIMES = {
    "fake": "edgeseg.runtimes.fake_runtime:FakeRuntime",
    "litert": "edgeseg.runtimes.litert_runtime:LiteRtRuntime",
    "onnxruntime": "edgeseg.runtimes.onnx_runtime:OnnxRuntime",
    "openvino": "edgeseg.runtimes.openvino_runtime:OpenVinoRuntime",
}
ENGINES = tuple(name for name in RUNTIMES if name != "fake")
# The engine that each format is made for, and proven with.
FORMAT_OF = {"onnxruntime": Format.ONNX, "openvino": Format.OPENVINO, "litert": Format.TFLITE}
ENGINE_OF = {kind: name for name, kind in FORMAT_OF.items()}
# The lowest versions of the engines that edgeseg admits: those of its extras in pyproject.toml.
MIN_RUNTIMES = {"litert": "2.0", "onnxruntime": "1.20", "openvino": "2025.0"}

# What the code behind an extra imports, by pip's names; the first that is absent is the one reported.
EXTRAS = {
    "convert": (
        *("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "torchao"),
        *("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "safetensors"),
    ),
    "fleet": ("labgrid",),
    "report": ("cyclonedx-python-lib", "jinja2", "matplotlib"),
    "train": ("torch", "safetensors", "monai", "torch-pruning"),
}

# Packages whose module has another name than theirs.
_MODULES = {"cyclonedx-python-lib": "cyclonedx"}


def load_attribute(target: str) -> Any:
    """The object that `package.module:attribute` names. Import errors pass through unchanged."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def runtime(name: str) -> Runtime:
    """A runtime by name. Raises BadInput for an unknown one."""
    if name not in RUNTIMES:
        raise BadInput(f"unknown runtime {name!r}, expected one of {', '.join(RUNTIMES)}")
    return cast(Runtime, load_attribute(RUNTIMES[name])())


def require(extra: str, needed_for: str) -> None:
    """Raise MissingDependency for the first package of an extra that is not installed; nothing is imported.

    Args:
        extra: a key of EXTRAS.
        needed_for: what cannot be done without it, for the message.
    """
    for package in EXTRAS[extra]:
        if find_spec(_MODULES.get(package, package.replace("-", "_"))) is None:
            raise MissingDependency(package, needed_for, extra)
