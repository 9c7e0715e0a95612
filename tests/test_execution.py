"""What an engine ran, against what was asked for and what was recorded at conversion."""

from __future__ import annotations

import pytest

from edgeseg.evidence import Baseline, Execution
from edgeseg.execution import execution_faults, recorded
from edgeseg.types import Artifact, Format, Precision


def ran(precision="int8", int8=30, layers=32, provider="CPU", **other):
    providers = other.pop("providers", {provider: layers})
    return Execution(provider, precision, int8, layers, providers, other or {precision: layers})


def artifact(executed=None, precision=Precision.INT8, runtime="openvino", device="cpu"):
    baseline = () if executed is None else (Baseline(runtime, "1.0", device, executed, 40.0, 1.0, 37.0, 0.999),)
    return Artifact(Format.OPENVINO, precision, (), baselines=baseline)


def test_what_was_recorded_is_no_fault():
    assert execution_faults(artifact(ran()), "openvino", "cpu", ran()) == []
    assert execution_faults(artifact(), "openvino", "cpu", ran()) == []


@pytest.mark.parametrize(
    ("precision", "executed", "said"),
    [
        ("int8", ran("fp16", 0), ["an int8 artifact ran in fp16", "32 layers ran in fp16"]),
        ("int8", ran("bf16", 0), ["an int8 artifact ran in bf16", "32 layers ran in bf16"]),
        ("int8", ran("fp32", 0), ["an int8 artifact ran in fp32"]),
        ("fp32", ran("bf16", 0), ["an fp32 artifact ran in bf16", "32 layers ran in bf16"]),
        ("fp32", ran("fp32", 0, fp32=30, fp16=2), ["2 layers ran in fp16"]),
        ("fp16", ran("bf16", 0), ["an fp16 artifact ran in bf16"]),
    ],
)
def test_another_precision_is_a_fault_even_without_a_record(precision, executed, said):
    faults = execution_faults(artifact(precision=Precision(precision)), "openvino", "cpu", executed)
    assert [f.split(",")[0] for f in faults] == said


def test_an_fp16_artifact_may_be_computed_more_exactly():
    assert execution_faults(artifact(precision=Precision.FP16), "openvino", "cpu", ran("fp32", 0)) == []


@pytest.mark.parametrize(
    ("runtime", "device", "provider"),
    [("onnxruntime", "cuda", "CPUExecutionProvider"), ("openvino", "gpu", "CPU"), ("openvino", "npu", "CPU")],
)
def test_a_device_that_was_silently_replaced(runtime, device, provider):
    [fault] = execution_faults(artifact(), runtime, device, ran(provider=provider))
    assert fault == f"32 of 32 layers ran on {provider}, asked for was {device}"


def test_the_second_gpu_is_a_gpu():
    assert execution_faults(artifact(), "openvino", "gpu", ran(provider="GPU.1")) == []


def test_more_fallbacks_than_recorded():
    known = artifact(ran(int8=30))
    assert execution_faults(known, "openvino", "cpu", ran(int8=31)) == []
    [fault] = execution_faults(known, "openvino", "cpu", ran(int8=20))
    assert fault == "12 of 32 layers fell back from int8, recorded at conversion: 2 with openvino 1.0"


def test_layers_that_left_their_delegate():
    known = artifact(ran(provider="XNNPACK", providers={"XNNPACK": 30, "CPU": 2}), runtime="litert")
    same = ran(provider="XNNPACK", providers={"XNNPACK": 30, "CPU": 2})
    assert execution_faults(known, "litert", "cpu", same) == []
    [fault] = execution_faults(known, "litert", "cpu", ran(provider="XNNPACK", providers={"XNNPACK": 20, "CPU": 12}))
    assert fault.startswith("12 of 32 layers fell back from XNNPACK, recorded at conversion: 2")


def test_a_record_of_another_device_is_none():
    assert recorded(artifact(ran(), device="npu"), "openvino", "cpu") is None
