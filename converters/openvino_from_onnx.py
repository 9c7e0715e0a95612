"""OpenVINO IR from the fp32 ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import openvino

from edgeseg.converters.onnx_from_torch import OnnxFromTorch
from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.errors import UnsupportedModel
from edgeseg.types import Format, Precision


@dataclass(frozen=True, slots=True)
class OpenVinoFromOnnx:
    """Convert and save as IR.

    Attributes:
        precision: FP32, or FP16 for weights stored in half the size (a CPU still computes in f32).
    """

    precision: Precision = Precision.FP32

    @property
    def makes(self) -> Kind:
        """OpenVINO in the precision asked for."""
        return (Format.OPENVINO, self.precision)

    @property
    def needs(self) -> Kind:
        """The fp32 ONNX model."""
        return OnnxFromTorch.makes

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.PRECISION.xml and .bin."""
        path = work.need(self.needs)
        with quiet():
            try:
                # Not Core.read_model: without the converter's transformations NNCF leaves a third of the layers in f32.
                model = openvino.convert_model(path)
            except Exception as error:
                raise UnsupportedModel(f"OpenVINO cannot express the model: {str(error).strip()[:300]}") from error
            return save_ir(model, work.folder, self.precision)


def save_ir(model: openvino.Model, folder: Path, precision: Precision) -> tuple[Path, ...]:
    """Write an IR; its weights keep their own precision unless fp16 is asked for."""
    out = folder / f"model.{precision}.xml"
    for index, node in enumerate(model.get_ordered_ops()):
        # Names that nobody gave hold a counter of this process: the same model would hash differently each time.
        if node.get_type_name() == "Constant" or node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    openvino.save_model(model, out, compress_to_fp16=precision is Precision.FP16)
    return out, out.with_suffix(".bin")
