"""Which steps make which artifacts."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.converters.onnx_from_torch import OnnxFromTorch
from edgeseg.converters.onnx_int8_from_onnx import OnnxInt8FromOnnx
from edgeseg.converters.openvino_from_onnx import OpenVinoFromOnnx
from edgeseg.converters.openvino_int8_from_openvino import OpenVinoInt8FromOpenVino
from edgeseg.converters.recipe import Recipe
from edgeseg.converters.step import Kind, Step
from edgeseg.converters.tflite_from_torch import TfliteFromTorch
from edgeseg.converters.tflite_int8_from_tflite import TfliteInt8FromTflite
from edgeseg.errors import UnsupportedModel
from edgeseg.types import Format, Precision


def plan(formats: Sequence[Format], precisions: Sequence[Precision], recipe: Recipe) -> list[Step]:
    """The steps for these artifacts in the order they depend on each other, intermediates included.

    Raises:
        UnsupportedModel: for a combination that no step makes.
    """
    quantize = recipe.quantize
    steps: list[Step] = [
        OnnxFromTorch(),
        TfliteFromTorch(),
        OpenVinoFromOnnx(),
        OpenVinoFromOnnx(Precision.FP16),
        OnnxInt8FromOnnx(quantize.per_channel),
        OpenVinoInt8FromOpenVino(quantize.bias_correction, quantize.unify_concat),
        TfliteInt8FromTflite(),
    ]
    makers = {step.makes: step for step in steps}
    needed: set[Kind] = set()
    for kind in [(f, p) for f in formats for p in precisions]:
        if kind not in makers:
            raise UnsupportedModel(f"{kind[0]} in {kind[1]} is not made; {kind[1]} exists for OpenVINO only")
        link: Kind | None = kind
        while link is not None:
            needed.add(link)
            link = makers[link].needs
    return [step for step in steps if step.makes in needed]
