"""int8 OpenVINO IR from the fp32 IR, by NNCF."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import openvino

from edgeseg.converters.openvino_from_onnx import save_ir
from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.dataset import evenly_spaced
from edgeseg.metrics import sqnr_db
from edgeseg.types import Array, Format, Precision

_JUDGED = 8


@dataclass(frozen=True, slots=True)
class OpenVinoInt8FromOpenVino:
    """Post-training quantization with the mean of per-frame minima and maxima.

    Attributes:
        bias_correction: NNCF's fast bias correction; noise or harm for the models measured.
        unify_concat: one scale for all inputs of a Concat. It saves a requantization at every skip connection, and it
            ruins those whose two sides differ in range by an order of magnitude; "auto" makes both and keeps the one
            that is closer to fp32 on the calibration frames.
    """

    bias_correction: bool = False
    unify_concat: bool | Literal["auto"] = "auto"
    makes: ClassVar[Kind] = (Format.OPENVINO, Precision.INT8)
    needs: ClassVar[Kind] = (Format.OPENVINO, Precision.FP32)

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.int8.xml and .bin."""
        path = work.need(self.needs)
        with quiet():
            model = openvino.Core().read_model(path)
            joins = any(node.get_type_name() == "Concat" for node in model.get_ordered_ops())
            choices = (True, False) if self.unify_concat == "auto" and joins else (self.unify_concat is not False,)
            variants = [self._quantize(path, work.calibration, unify) for unify in choices]
            best = max(variants, key=lambda v: _sqnr_db(model, v, work.calibration)) if joins else variants[0]
            return save_ir(best, work.folder, Precision.INT8)

    def _quantize(self, path: Path, calibration: Sequence[Array], unify_concat: bool) -> openvino.Model:
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            OverflowFix,
            QuantizationParameters,
        )
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            openvino.Core().read_model(path),
            nncf.Dataset(list(calibration)),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=None if unify_concat else nncf.IgnoredScope(types=["Concat"], validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                # Halved weights guard against overflow on CPUs without VNNI; it costs accuracy everywhere else.
                overflow_fix=OverflowFix.DISABLE,
                disable_bias_correction=not self.bias_correction,
                activations_quantization_params=QuantizationParameters(per_channel=False),
                activations_range_estimator_params=RangeEstimatorParametersSet.MEAN_MINMAX,
            ),
        )


def _sqnr_db(model: openvino.Model, quantized: openvino.Model, frames: Sequence[Array]) -> float:
    core = openvino.Core()
    exact, rounded = (
        core.compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for m in (model, quantized)
    )
    picks = [frames[i] for i in evenly_spaced(len(frames), _JUDGED)]
    return sqnr_db(*(np.stack([np.array(run([f])[0]) for f in picks]) for run in (exact, rounded)))
