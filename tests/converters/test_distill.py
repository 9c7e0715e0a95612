"""The edge student and what it takes over from its source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.converters.distill import student_of, take_over
from edgeseg.converters.latency import with_module
from edgeseg.converters.macs import macs
from edgeseg.converters.models.blocks import PackedStem
from edgeseg.converters.models.build import architecture, build
from edgeseg.converters.recipe import Distill
from edgeseg.converters.source import SourceOptions, load_source
from edgeseg.converters.step import Workspace
from edgeseg.converters.tflite_from_torch import TfliteFromTorch
from edgeseg.errors import BadInput
from edgeseg.parity import nchw_runner
from edgeseg.runtimes.litert_runtime import LiteRtRuntime


@pytest.mark.parametrize("options", [{}, {"decoder_stride": 4}, {"stem_rows": 12}, {"mixes": 0}, {"in_channels": 3}])
def test_an_edge_unet_gives_logits_at_stride_4(options: dict[str, int]) -> None:
    model = build("edge-unet", classes=4, **options).eval()
    x = torch.rand(2, options.get("in_channels", 1), 64, 96)
    assert model(x).shape == (2, 4, 16, 24)
    again = architecture(model)
    build(again["name"], **again["options"]).load_state_dict(model.state_dict())


def test_every_channel_of_an_edge_unet_feeds_an_int8_kernel_whole() -> None:
    for layer in build("edge-unet").modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.in_channels > 4 and layer.out_channels > 4:
            assert layer.in_channels % 16 == layer.out_channels % 16 == 0
            assert layer.groups == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (16, 32)}, r"widths is \(16, 32\), expected 3 to 5"),
        ({"blocks": (1, 1)}, "expected one count for each of the 4 widths"),
        ({"stem_rows": 5}, "stem_rows is 5, expected 4, 8 or 12"),
        ({"decoder_stride": 2}, "decoder_stride is 2, expected 4 or 8"),
        ({"decoder": (1,)}, "unknown option 'decoder' of edge-unet"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build("edge-unet", **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_packed_stem_is_a_convolution_of_stride_4(channels: int) -> None:
    torch.manual_seed(0)
    stem = PackedStem(channels, 5, 4).eval()
    weight = stem.conv.weight.detach().view(5, channels, 4, 4)  # outputs, channel, column, row
    x = torch.randn(2, channels, 16, 24)
    expected = torch.nn.functional.conv2d(x, weight.transpose(2, 3), stride=4)
    torch.testing.assert_close(stem(x), stem.relu(stem.bn(expected)))


@pytest.mark.parametrize("name", ["mobilenetv2-unet", "efficientnet-lite0-unet"])
def test_a_packed_stem_keeps_the_encoder_s_other_names(name: str) -> None:
    dense = build(name)
    edge = build(name, decoder=(96, 48, 32), join="add", upsample="nearest", packed_stem=True)
    assert edge.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 1, 16, 16)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.fill_(0.25)
    copied = take_over(edge, dense)
    assert copied > 0.8 * len([k for k in dense.encoder.state_dict() if k in edge.encoder.state_dict()])
    own = edge.state_dict()
    same = [k for k, v in dense.state_dict().items() if k in own and own[k].shape == v.shape]
    assert len(same) == copied
    assert all(torch.equal(own[k], dense.state_dict()[k]) for k in same)
    example = torch.zeros(1, 1, 64, 64)
    assert macs(edge, example) < 0.9 * macs(dense, example)


def test_a_student_takes_the_source_s_input_and_classes(user: Path) -> None:
    options = SourceOptions(weights=user / "tiny.safetensors", size=(64, 96))
    source = load_source("usermodels:tiny", options)
    distill = Distill(options={"widths": (16, 16, 16), "blocks": (0, 0, 0)})
    student = student_of(source, distill)
    assert student.options.in_channels == 1
    assert torch.equal(student.head.weight, student_of(source, distill).head.weight)  # seeded
    odd = replace(source, preprocess=replace(source.preprocess, height=72))
    with pytest.raises(BadInput, match="takes sizes divisible by 16, the source has 72x96"):
        student_of(odd, distill)


def test_a_network_in_channels_last_memory_is_no_other_network_in_tflite(user: Path, tmp_path: Path) -> None:
    source = load_source("usermodels:tiny", SourceOptions(weights=user / "tiny.safetensors", size=(64, 96)))
    torch.manual_seed(0)
    model = build("edge-unet", widths=(16, 16, 16), blocks=(0, 1, 0)).eval().to(memory_format=torch.channels_last)
    student = with_module(source, model)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, 64, 96)).astype(np.float32)
    (path,) = TfliteFromTorch().apply(Workspace(student, tmp_path, [pixels]))
    with LiteRtRuntime().load(path, device="cpu") as session:
        logits = nchw_runner(session.run, session.inputs, session.outputs)(pixels)
        np.testing.assert_allclose(logits, student.run(pixels), atol=1e-4)
