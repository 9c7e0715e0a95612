"""int8 TFLite from fp32 TFLite, by ai-edge-quantizer, calibrated frame by frame."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeseg.converters.quiet import quiet
from edgeseg.converters.step import Kind, Workspace
from edgeseg.types import Format, Precision


@dataclass(frozen=True, slots=True)
class TfliteInt8FromTflite:
    """Static int8 weights and activations; inputs and outputs stay float32.

    The quantizer's own calibration over many frames is a moving average that depends on their order: it is asked once
    a frame, and the minima and maxima are averaged.
    """

    makes: ClassVar[Kind] = (Format.TFLITE, Precision.INT8)
    needs: ClassVar[Kind] = (Format.TFLITE, Precision.FP32)

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write model.int8.tflite."""
        path, out = str(work.need(self.needs)), work.folder / "model.int8.tflite"
        with quiet():
            from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

            def fresh() -> Any:
                made = quantizer.Quantizer(path)
                made.load_quantization_recipe(recipe.static_wi8_ai8())
                # As float32 the ports are those of every other artifact, and the engine converts faster than numpy.
                for port in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                    made.update_quantization_recipe(
                        ".*", port, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
                    )
                return made

            lows: dict[str, list[Any]] = defaultdict(list)
            highs: dict[str, list[Any]] = defaultdict(list)
            signature = _signature(path)
            for pixels in work.calibration:
                image = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
                feeds = {signature[0]: [{signature[1]: image}]}
                for name, seen in fresh().calibrate(feeds, num_threads=1).items():
                    if seen:
                        lows[name].append(seen["min"])
                        highs[name].append(seen["max"])
            table = {n: {"min": np.mean(lows[n], axis=0), "max": np.mean(highs[n], axis=0)} for n in lows}
            fresh().quantize(table).export_model(str(out), overwrite=True)
        return (out,)


def _signature(path: str) -> tuple[str, str]:
    """Names of the first signature and of its input."""
    from ai_edge_litert.interpreter import Interpreter

    name, tensors = next(iter(Interpreter(model_path=path).get_signature_list().items()))
    return name, tensors["inputs"][0]
