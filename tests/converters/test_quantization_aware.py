"""Fine-tuning under int8 rounding."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from edgeseg.converters.models.build import build
from edgeseg.converters.quantization_aware import quantization_aware
from edgeseg.errors import UnsupportedModel


def images() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        yield torch.randn(4, 1, 32, 32, generator=generator)


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("edge-unet", widths=(8, 8, 8), blocks=(0, 1, 0)).eval()


def test_the_network_sees_rounded_weights_and_inputs_and_keeps_its_own() -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    plain = module(next(images()))
    levels: list[int] = []
    changed: list[float] = []

    def look(inside: nn.Module, name: str, **callbacks: object) -> None:
        layer = next(m for m in inside.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 8)
        per_channel = [len(channel.unique()) for channel in layer.weight]
        layer.register_forward_hook(lambda m, inputs, output: levels.append(len(inputs[0].unique())))
        changed.append(float((inside(next(images())) - plain).abs().max()))
        assert max(per_channel) <= 255

    quantization_aware(module, look, images)
    assert 2 < levels[0] <= 256
    assert changed[0] > 0
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    torch.testing.assert_close(module(next(images())), plain)


def test_fine_tuning_brings_the_rounded_network_closer() -> None:
    target = network()
    module = network()
    wanted = [(x, target(x).detach()) for x in images()]
    errors: list[float] = []

    def train(inside: nn.Module, name: str, **callbacks: object) -> None:
        optimizer = torch.optim.Adam(inside.parameters(), 1e-3)
        for _ in range(40):
            loss = torch.stack([nn.functional.mse_loss(inside(x), y) for x, y in wanted]).mean()
            errors.append(float(loss))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    quantization_aware(module, train, images)
    assert min(errors[-5:]) < 0.5 * errors[0]


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="Sequential has no convolution or linear layer"):
        quantization_aware(nn.Sequential(nn.ReLU()), lambda *a, **k: None, images)
