"""ONNX Runtime's providers: what each is told, and why one did not start.

Keys and values are those that the CUDA and TensorRT providers of onnxruntime-gpu 1.31 know. Nothing here was verified
on hardware: docs/gpu.md says what was checked, and how.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from edgeseg.engine_options import Options
from edgeseg.errors import NoSuchDevice
from edgeseg.runtimes.held_stderr import held_stderr
from edgeseg.types import Model

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# The engine's own error codes and where in its sources they come from; expressions and host names of CUDA's errors.
NOISE = (
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+:\d+ .*?\) (?:\[with .*?\] )?|"
    r" ; GPU=-?\d+ ; hostname=[^\n]*"
)

_WORKSPACE_MB = 1024
_MB = 1 << 20
_LIBRARY = re.compile(r"with error: ([^\n\x1b]+)")
_VERSIONS = re.compile(r"Require (cuDNN \S+ and CUDA [\d.]+\*)")
_CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]+")
_OUT_OF_MEMORY = "CUDA failure 2:"
_NO_TENSORRT = "Please install TensorRT libraries"
_DRIVER = "libcuda.so"


def provider_list(model: Model, device: str, options: Options, version: str) -> list[Any]:
    """The providers for a device with their options, best first; the CPU takes what the others cannot.

    Args:
        model: that they are to run.
        device: a key of PROVIDERS.
        options: as of `edgeseg.engine_options`.
        version: of the engine.
    """
    cpu, cuda = PROVIDERS["cpu"], (PROVIDERS["cuda"], _cuda_options(options))
    if device == "tensorrt":
        return [(PROVIDERS["tensorrt"], tensorrt_options(model, options, version)), cuda, cpu]
    return [cuda, cpu] if device == "cuda" else [cpu]


def start(engine: Any, create: Callable[..., Any], device: str, name: str) -> Any:
    """A session on a GPU, from what creates it, or the reason why there is none.

    The engine tells reasons on standard error only, and goes on with another provider without an error. Neither at the
    start nor in the middle of a run is that wanted here.

    Args:
        engine: the module.
        create: a session, with `enable_fallback` as one more argument.
        device: a key of PROVIDERS.
        name: of the model, for messages.

    Raises:
        NoSuchDevice: the provider did not start: no library, no driver, no GPU.
    """
    provider = PROVIDERS[device]
    with held_stderr() as read, redirect_stdout(io.StringIO()) as said:
        try:
            _preload(engine)
            # Engines before 1.21 do not know this and go on: then the list of providers tells.
            session = create(enable_fallback=0)
        except Exception as error:
            reason = _reason(f"{error}\n{read()}")
            if reason is None:
                raise
            raise NoSuchDevice(_message(provider, name, reason)) from error
        told = read() + said.getvalue()
    session.disable_fallback()
    if provider not in session.get_providers():
        fallen = f"it fell back to {', '.join(session.get_providers())}"
        raise NoSuchDevice(_message(provider, name, "; ".join(filter(None, (_reason(told), fallen)))))
    return session


def tensorrt_precision(model: Model, options: Options) -> str:
    """What TensorRT was allowed to compute in: its record of a run does not say what it chose."""
    told = _precisions(model, options)
    return "int8" if told["trt_int8_enable"] == "1" else "fp16" if told["trt_fp16_enable"] == "1" else "fp32"


def _is_quantized(model: Model) -> bool:
    """Whether a model has quantized layers: names of operators stand verbatim in the file, no ONNX parser is needed."""
    return b"QuantizeLinear" in model.files[0]


def tensorrt_options(model: Model, options: Options, version: str) -> dict[str, str]:
    """What TensorRT is told, as its provider documents it."""
    told = {
        "device_id": "0",
        "trt_max_workspace_size": str(int(options.get("tensorrt_workspace_mb", _WORKSPACE_MB)) * _MB),
        **_precisions(model, options),
    }
    if "tensorrt_builder_level" in options:
        told["trt_builder_optimization_level"] = str(options["tensorrt_builder_level"])
    if "tensorrt_dla_core" in options:
        told |= {"trt_dla_enable": "1", "trt_dla_core": str(options["tensorrt_dla_core"])}
    if options.get("tensorrt_engine_cache", True):
        root = Path(str(options.get("tensorrt_cache_dir", _cache_root())))
        folder = _engine_folder(root, model, told, version)
        told |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        told |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(root)}
    return told


def _precisions(model: Model, options: Options) -> dict[str, str]:
    """int8 is for quantized models only: for others it would want a calibration table."""
    int8 = _is_quantized(model) and options.get("tensorrt_int8", True)
    fp16 = options.get("tensorrt_fp16", "fp16" in model.name)
    return {"trt_fp16_enable": _flag(fp16), "trt_int8_enable": _flag(int8)}


def _cuda_options(options: Options) -> dict[str, str]:
    told = {
        "device_id": "0",
        "cudnn_conv_algo_search": str(options.get("cuda_conv_search", "EXHAUSTIVE")),
        # TF32 would round fp32 convolutions to 10 bits of mantissa.
        "use_tf32": _flag(options.get("cuda_tf32", False)),
    }
    if "cuda_memory_mb" in options:
        told["gpu_mem_limit"] = str(int(options["cuda_memory_mb"]) * _MB)
        # Doubling would ask for more than the limit long before it is needed.
        told["arena_extend_strategy"] = "kSameAsRequested"
    return told


def _preload(engine: Any) -> None:
    """Load CUDA and cuDNN from pip's packages, where they are: engines from 1.21 on bring the means for it."""
    preload = getattr(engine, "preload_dlls", None)
    if preload is not None:
        preload()


def _cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg" / "tensorrt"


def _engine_folder(root: Path, model: Model, told: Mapping[str, str], version: str) -> Path:
    """Of one model with its options: the provider names engines by the graph, and takes those of other weights too.

    It is made for this user alone: what lies there is executed.
    """
    digest = hashlib.sha256(repr(sorted(told.items())).encode())
    for file in model.files:
        digest.update(file)
    folder = root / f"{version}-{digest.hexdigest()[:32]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _flag(value: object) -> str:
    return "1" if value else "0"


def _reason(told: str) -> str | None:
    """Why a provider did not start, in a few words; None where nothing says that it did not."""
    failure, library = _CUDA_FAILURE.search(told), _LIBRARY.search(told)
    if failure is not None:
        return None if failure[0].startswith(_OUT_OF_MEMORY) else failure[0].strip()
    if library is None:
        return "the TensorRT libraries are missing" if _NO_TENSORRT in told else None
    versions = _VERSIONS.search(told)
    driver = "; there is no NVIDIA driver" if _DRIVER in library[1] else ""
    needs = f"; it needs {versions[1]}" if versions and not driver else ""
    return f"{library[1].strip()}{driver or needs}"


def _message(provider: str, name: str, reason: str) -> str:
    return f"onnxruntime could not start {provider} for {name}: {reason}; see docs/gpu.md, or use device cpu"
