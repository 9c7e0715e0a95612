"""fp32 ONNX from the torch source, by torch's dynamo exporter."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx
import torch
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.errors import UnsupportedModel
from edgeseg.types import Format, Precision

_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
INPUT, OUTPUT = "image", "logits"
_COMPLAINT = re.compile(
    r"(?:no decomposition|No ONNX function found for|Lowering not found:|unsupported|not supported)[^\n]*"
)
_ATEN = re.compile(r"(?:aten|torchvision|prims|[a-z_]+)(?:::|\.)[a-z_0-9]+(?:\.[A-Za-z_]+)?")


@dataclass(frozen=True, slots=True)
class OnnxFromTorch:
    """Export with static shapes and batch 1, then infer shapes and fold what is constant.

    Attributes:
        opset: of the ONNX standard; 18 is the oldest that the exporter writes without a version conversion.
    """

    opset: int = 18
    makes: ClassVar[Kind] = (Format.ONNX, Precision.FP32)
    needs: ClassVar[Kind | None] = None

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.fp32.onnx."""
        raw, out = work.folder / "raw.onnx", work.folder / "model.fp32.onnx"
        with quiet():
            try:
                torch.onnx.export(
                    work.source.network,
                    (work.source.example,),
                    raw,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    opset_version=self.opset,
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
            except Exception as error:
                raise unsupported(error, "ONNX") from error
            quant_pre_process(raw, out, skip_symbolic_shape=True)
        raw.unlink()
        _forget_origin(out)
        return (out,)


def _forget_origin(path: Path) -> None:
    """Drop the exporter's stack traces: they name folders of this machine and differ from one to the next."""
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for part in (model.graph, model):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.save(model, path)


def unsupported(error: Exception, target: str) -> UnsupportedModel:
    """The exporter's error in one line, with the operator it names. Raises OSError where a full disk is behind it."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_TROUBLE:
            raise cause
        causes.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(causes)
    named = _COMPLAINT.search(text)
    operator = _ATEN.search(named.group() if named else "") or re.search(r"aten[.:]+[a-z_0-9.]+", text)
    what = f"operator {operator.group()}" if operator else text.strip().splitlines()[0][:160]
    return UnsupportedModel(f"{target} cannot express the model: {what}")
