"""int8 ONNX from fp32 ONNX, by ONNX Runtime's quantizer from the one range table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from edgeseg.converters.calibrate import onnx_ranges
from edgeseg.converters.onnx_from_torch import OnnxFromTorch
from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.types import Format, Precision


@dataclass(frozen=True, slots=True)
class OnnxInt8FromOnnx:
    """QDQ with unsigned activations and signed per-channel weights: what ONNX Runtime fuses into int8 kernels.

    Attributes:
        per_channel: one scale per output channel of a convolution.
    """

    per_channel: bool = True
    makes: ClassVar[Kind] = (Format.ONNX, Precision.INT8)
    needs: ClassVar[Kind] = OnnxFromTorch.makes

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.int8.onnx."""
        model, out = work.need(self.needs), work.folder / "model.int8.onnx"
        table = work.folder / "ranges.json"
        if work.ranges is None:
            work.ranges = onnx_ranges(model, work.calibration)
        pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in work.ranges.items()}
        with quiet():
            save_tensors_data(TensorsData(CalibrationMethod.MinMax, pairs), table, smooth_quant=False)
            quantize_static(
                model,
                out,
                None,
                calibration_cache_path=table,
                per_channel=self.per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        table.unlink()
        return (out,)
