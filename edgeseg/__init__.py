"""edgeseg puts trained ultrasound segmenters onto the devices that need them.

    import edgeseg
    bundle = edgeseg.open_bundle("head.edgeseg")
    with edgeseg.load(bundle) as segmenter:
        result = segmenter(frame)          # frame: [H, W] or [H, W, 3] uint8
        result.mask                        # [H, W] uint8, class indices

Every name is imported on first use, so that `import edgeseg` costs nothing that is not asked for. What type checkers
and editors know of them is in __init__.pyi.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# Two engines report their use to their makers by default; onnxruntime keeps the reports on the disk until there is a
# network. Nothing that edgeseg starts does. openvino has a stub for where the package that reports is missing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)

__version__ = "0.1.0"

_EXPORTS = {
    "BadInput": "edgeseg.errors",
    "Bundle": "edgeseg.types",
    "BundleError": "edgeseg.errors",
    "BundleTooNew": "edgeseg.errors",
    "ConversionError": "edgeseg.errors",
    "EdgesegError": "edgeseg.errors",
    "EngineCrashed": "edgeseg.errors",
    "EngineTimeout": "edgeseg.errors",
    "ExecutionMismatch": "edgeseg.errors",
    "GateFailed": "edgeseg.errors",
    "InferenceError": "edgeseg.errors",
    "Limits": "edgeseg.runtimes.sandbox",
    "MissingDependency": "edgeseg.errors",
    "NoSuchDevice": "edgeseg.errors",
    "Segmentation": "edgeseg.runtimes.segmenter",
    "Segmenter": "edgeseg.runtimes.segmenter",
    "SignatureError": "edgeseg.errors",
    "Signer": "edgeseg.types",
    "Stream": "edgeseg.runtimes.stream",
    "StreamFailed": "edgeseg.errors",
    "StreamOptions": "edgeseg.runtimes.stream_result",
    "StreamResult": "edgeseg.runtimes.stream_result",
    "UnsupportedModel": "edgeseg.errors",
    "load": "edgeseg.runtimes.segmenter",
    "load_chain": "edgeseg.runtimes.fallback",
    "open_bundle": "edgeseg.bundle",
    "open_source": "edgeseg.sources.opening",
    "paced": "edgeseg.sources.pacing",
}
__all__ = sorted([*_EXPORTS, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    from edgeseg.plugins import load_attribute

    return load_attribute(f"{_EXPORTS[name]}:{name}")
