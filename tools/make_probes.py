"""Make the probe models: the smallest network that tells a working engine from a broken one, in every format.

    python tools/make_probes.py

Writes edgeseg/samples/probe/ (fp32 in three formats, one input, the expected output) and tests/runtimes/models/ (the
same network in int8). Needs the extra `convert`. The probes are committed: run it only to change them.

The network has three input channels, two output channels, sides of different length and lopsided kernels, so that a
mix-up of axes, layouts or kernels cannot give the expected output. It segments bright regions (class 1).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
PROBE = ROOT / "edgeseg" / "samples" / "probe"
INT8 = ROOT / "tests" / "runtimes" / "models"
HEIGHT, WIDTH = 24, 32
CALIBRATION_FRAMES = 8


class Probe(nn.Module):
    """Normalisation, conv, ReLU, conv: [1, 3, 24, 32] float32 in 0..255 to logits [1, 2, 24, 32] float32."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 8, 3, padding=1)
        self.decide = nn.Conv2d(8, 2, 3, padding=1)
        generator = torch.Generator().manual_seed(20)
        with torch.no_grad():
            self.blur.weight.copy_(torch.rand(self.blur.weight.shape, generator=generator) / 12)
            self.blur.bias.copy_(torch.linspace(-0.1, 0.1, 8))
            kernel = torch.rand(self.decide.weight[1].shape, generator=generator) / 36
            self.decide.weight.copy_(torch.stack([-0.4 * kernel.flip(-1), kernel]))
            self.decide.bias.copy_(torch.tensor([0.35, -0.35]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of background and bright."""
        return self.decide(torch.relu(self.blur(image / 255)))


def frames() -> list[np.ndarray[Any, Any]]:
    """Bright discs on a dark, uneven ground, each [1, 3, 24, 32] float32."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    made = []
    for index in range(CALIBRATION_FRAMES):
        random = np.random.default_rng(index)
        y, x, radius = random.uniform(8, 16), random.uniform(8, 24), random.uniform(4, 8)
        disc = 170 * (np.hypot(rows - y, columns - x) < radius)
        gray = 20 + disc + random.uniform(0, 60, (3, HEIGHT, WIDTH)) * np.array([1, 0.7, 0.4])[:, None, None]
        made.append(np.floor(gray)[None].astype(np.float32))
    return made


def write_onnx(net: Probe, image: torch.Tensor, path: Path) -> None:
    """Export with fixed shapes, without the exporter's stack traces: they carry paths of this machine."""
    import onnx

    torch.onnx.export(
        net, (image,), path, dynamo=True, opset_version=18, external_data=False, verbose=False,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, path)


def write_onnx_int8(fp32: Path, path: Path) -> None:
    """QDQ with unsigned activations and per-channel weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(frames())

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    quantize_static(
        fp32, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )


def write_openvino(fp32: Path, path: Path, path_int8: Path) -> None:
    """Uncompressed fp32 IR, and its int8 form by NNCF."""
    import nncf
    import openvino as ov

    model = ov.convert_model(fp32)
    ov.save_model(model, path, compress_to_fp16=False)
    quantized = nncf.quantize(model, nncf.Dataset(frames()), subset_size=CALIBRATION_FRAMES)
    ov.save_model(quantized, path_int8, compress_to_fp16=False)


def write_tflite(net: Probe, image: torch.Tensor, path: Path) -> None:
    """Channels last."""
    import litert_torch

    channels_last = litert_torch.to_channel_last_io(net, args=[0], outputs=[0])
    litert_torch.convert(channels_last, (image.permute(0, 2, 3, 1).contiguous(),)).export(str(path))


def write_tflite_int8(fp32: Path, path: Path, *, float_ports: bool) -> None:
    """By ai-edge-quantizer, with float32 or int8 input and output."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    int8 = quantizer.Quantizer(str(fp32))
    int8.load_quantization_recipe(recipe.static_wi8_ai8())
    if float_ports:
        for port in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
            int8.update_quantization_recipe(".*", port, algorithm_key=AlgorithmName.NO_QUANTIZE)
    samples = [{"args_0": frame.transpose(0, 2, 3, 1).copy()} for frame in frames()]
    int8.quantize(int8.calibrate({"serving_default": samples})).export_model(str(path), overwrite=True)


def main() -> None:
    """Write all files."""
    PROBE.mkdir(parents=True, exist_ok=True)
    INT8.mkdir(parents=True, exist_ok=True)
    net = Probe().eval()
    image = torch.from_numpy(frames()[0])
    with torch.no_grad():
        expected = net(image).numpy()
    np.save(PROBE / "input.npy", image.numpy())
    np.save(PROBE / "expected.npy", expected)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "probe.onnx"
        write_onnx(net, image, raw)
        (PROBE / "probe.onnx").write_bytes(raw.read_bytes())
        write_onnx_int8(raw, INT8 / "probe-int8.onnx")
        write_openvino(raw, PROBE / "probe.xml", INT8 / "probe-int8.xml")
    write_tflite(net, image, PROBE / "probe.tflite")
    write_tflite_int8(PROBE / "probe.tflite", INT8 / "probe-int8.tflite", float_ports=True)
    write_tflite_int8(PROBE / "probe.tflite", INT8 / "probe-int8-ports.tflite", float_ports=False)
    for file in sorted([*PROBE.iterdir(), *INT8.iterdir()]):
        print(f"{file.stat().st_size:7d}  {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
