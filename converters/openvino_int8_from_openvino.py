"""int8 OpenVINO IR from the fp32 IR, by NNCF."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import openvino

from edgeseg.converters.openvino_from_onnx import save_ir
from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.types import Format, Precision


@dataclass(frozen=True, slots=True)
class OpenVinoInt8FromOpenVino:
    """Post-training quantization with the mean of per-frame minima and maxima.

    Attributes:
        bias_correction: NNCF's fast bias correction; noise or harm for the models measured.
        unify_concat: one scale for all inputs of a Concat, as NNCF does by default. It ruins the skip connections of a
            U-Net, whose two sides differ in range by an order of magnitude.
    """

    bias_correction: bool = False
    unify_concat: bool = False
    makes: ClassVar[Kind] = (Format.OPENVINO, Precision.INT8)
    needs: ClassVar[Kind] = (Format.OPENVINO, Precision.FP32)

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.int8.xml and .bin."""
        path = work.need(self.needs)
        with quiet():
            import nncf
            from nncf.quantization.advanced_parameters import (
                AdvancedQuantizationParameters,
                OverflowFix,
                QuantizationParameters,
            )
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet

            nncf.set_log_level(logging.ERROR)
            quantized = nncf.quantize(
                openvino.Core().read_model(path),
                nncf.Dataset(list(work.calibration)),
                subset_size=len(work.calibration),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                ignored_scope=None if self.unify_concat else nncf.IgnoredScope(types=["Concat"], validate=False),
                advanced_parameters=AdvancedQuantizationParameters(
                    # Halved weights guard against overflow on CPUs without VNNI; it costs accuracy everywhere else.
                    overflow_fix=OverflowFix.DISABLE,
                    disable_bias_correction=not self.bias_correction,
                    activations_quantization_params=QuantizationParameters(per_channel=False),
                    activations_range_estimator_params=RangeEstimatorParametersSet.MEAN_MINMAX,
                ),
            )
            return save_ir(quantized, work.folder, Precision.INT8)
