"""Name -> class, imported on first use: what is not asked for is never imported."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from edgeseg.errors import BadInput
from edgeseg.types import Runtime

RUNTIMES = {
    "fake": "edgeseg.runtimes.fake_runtime:FakeRuntime",
    "litert": "edgeseg.runtimes.litert_runtime:LiteRtRuntime",
    "onnxruntime": "edgeseg.runtimes.onnx_runtime:OnnxRuntime",
    "openvino": "edgeseg.runtimes.openvino_runtime:OpenVinoRuntime",
}
ENGINES = tuple(name for name in RUNTIMES if name != "fake")


def load_attribute(target: str) -> Any:
    """The object that `package.module:attribute` names. Import errors pass through unchanged."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def runtime(name: str) -> Runtime:
    """A runtime by name. Raises BadInput for an unknown one."""
    if name not in RUNTIMES:
        raise BadInput(f"unknown runtime {name!r}, expected one of {', '.join(RUNTIMES)}")
    return cast(Runtime, load_attribute(RUNTIMES[name])())
