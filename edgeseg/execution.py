"""Whether an engine ran what was asked of it: device, precision, and no more fallbacks than at conversion."""

from __future__ import annotations

from collections.abc import Iterator

from edgeseg.evidence import Baseline, Execution
from edgeseg.types import Artifact, Precision

# How the engine of each runtime names what executes layers on a device.
_PROVIDERS = {
    ("litert", "cpu"): ("XNNPACK", "CPU"),
    ("onnxruntime", "cpu"): ("CPUExecutionProvider",),
    ("onnxruntime", "cuda"): ("CUDAExecutionProvider",),
    ("onnxruntime", "tensorrt"): ("TensorrtExecutionProvider",),
    ("openvino", "cpu"): ("CPU",),
    ("openvino", "gpu"): ("GPU",),
    ("openvino", "npu"): ("NPU",),
}
_EXACT = {
    Precision.FP32: ("fp32",),
    Precision.FP16: ("fp16", "fp32"),
    Precision.INT8: ("int8",),
}
_ROUNDED = ("bf16", "fp16")


def recorded(artifact: Artifact, runtime: str, device: str) -> Baseline | None:
    """What the artifact did on this runtime and device when it was made; None where it was not measured there."""
    same = (b for b in artifact.baselines if (b.runtime, b.device) == (runtime, device))
    return next(same, None)


def execution_faults(artifact: Artifact, runtime: str, device: str, executed: Execution) -> list[str]:
    """Everything in which an execution is not what was asked for, each in words; empty where it is.

    Args:
        artifact: what was loaded.
        runtime, device: where; the device that was asked for, or that "auto" became.
        executed: the engine's own record.
    """
    return list(_faults(artifact, recorded(artifact, runtime, device), runtime, device, executed))


def _faults(
    artifact: Artifact, baseline: Baseline | None, runtime: str, device: str, executed: Execution
) -> Iterator[str]:
    names = _PROVIDERS.get((runtime, device))
    elsewhere = executed.layers - sum(count for name, count in executed.providers.items() if _is(name, names))
    if names and executed.layers and 2 * elsewhere >= executed.layers:
        yield f"{elsewhere} of {executed.layers} layers ran on {executed.provider}, asked for was {device}"
    if executed.layers and executed.precision not in _EXACT[artifact.precision]:
        yield f"an {artifact.precision} artifact ran in {executed.precision}"
    if artifact.precision is not Precision.FP16:
        rounded = {p: executed.precisions.get(p, 0) for p in _ROUNDED}
        for precision, count in rounded.items():
            known = baseline.executed.precisions.get(precision, 0) if baseline else 0
            if count > known:
                yield f"{count} layers ran in {precision}, {_known(baseline, known)}"
    if baseline is None:
        return
    fallen = executed.layers - executed.int8_layers
    known = baseline.executed.layers - baseline.executed.int8_layers
    if artifact.precision is Precision.INT8 and fallen > known:
        yield f"{fallen} of {executed.layers} layers fell back from int8, {_known(baseline, known)}"
    known = baseline.executed.layers - max(baseline.executed.providers.values(), default=0)
    others = executed.layers - max(executed.providers.values(), default=0)
    if others > known:
        yield f"{others} of {executed.layers} layers fell back from {executed.provider}, {_known(baseline, known)}"


def _is(provider: str, names: tuple[str, ...] | None) -> bool:
    """`GPU.0` is a `GPU`."""
    return names is not None and provider.split(".")[0] in names


def _known(baseline: Baseline | None, count: int) -> str:
    where = f" with {baseline.runtime} {baseline.version}" if baseline else ""
    return f"recorded at conversion: {count}{where}"
