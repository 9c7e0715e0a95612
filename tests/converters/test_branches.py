from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgeseg.converters.branches import Branches, whole_branches
from edgeseg.converters.models.build import build
from edgeseg.converters.models.unet import EDGE
from edgeseg.errors import UnsupportedModel

X = torch.zeros(1, 1, 32, 32)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


class Network(nn.Module):
    """Two convolutions, something between them, and a head."""

    def __init__(self, between: nn.Module, inputs: int = 16, head: int = 8) -> None:
        super().__init__()
        self.first, self.between, self.second, self.head = conv(1, 16), between, conv(inputs, 8), conv(head, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.between(self.first(x)).relu()).relu())  # type: ignore[no-any-return]


class Glu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * b


class WithImage(Network):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((x, self.first(x)), 1)
        return self.head(self.second(y).relu())  # type: ignore[no-any-return]


class TwoOutputs(Network):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        y = self.second(self.first(x).relu())
        return {"features": y, "out": self.head(y.relu())}


@torch.no_grad()
def awake(model: nn.Module) -> nn.Module:
    """Batch-norm statistics that let a signal through random weights."""
    torch.manual_seed(0)
    for _ in range(30):
        model.train()(torch.rand(4, 1, 64, 64))
    return model.eval()


def test_a_concatenation_before_a_depthwise_convolution_is_two_branches() -> None:
    branches = Branches(build("mobilenetv2-unet"), torch.zeros(1, 1, 64, 64))
    joined = [b for b in branches.values() if "decoder.1.mix.0.0" in b.layers]
    assert {b.name: len(b) for b in joined} == {"encoder.features.4.conv.2": 32, "decoder.1.reduce.0": 48}


@pytest.mark.parametrize(
    ("name", "options"),
    [("mobilenetv2-unet", EDGE), ("mobilenetv2-unet", {}), ("efficientnet-lite0-unet", {}), ("edge-unet", {})],
)
def test_only_the_head_of_a_reference_model_is_whole(name: str, options: dict[str, object]) -> None:
    model = build(name, **options)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert whole_branches(model, torch.zeros(1, 1, 64, 64)) == {"head": "defines the output"}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_silenced_channels_are_as_good_as_gone_and_come_back() -> None:
    model, x = awake(build("mobilenetv2-unet", **EDGE)), torch.rand(1, 1, 64, 64)
    cuts = {"decoder.1.reduce.0": [0, 5, 7], "encoder.features.4.conv.2": [3, 4]}
    before = model(x).detach()
    branches = Branches(model, x)
    with branches.silenced(cuts):
        silent = model(x)
    assert torch.equal(model(x), before)
    branches.remove(cuts)
    assert torch.allclose(model(x), silent, atol=1e-4 * float(before.std()))
    assert float((silent - before).detach().std()) > 0.01 * float(before.std())
    assert model.decoder[1].mix[0][0].groups == 48 - 3
    assert model.encoder.features[4].conv[2].out_channels == 32 - 2


def test_frozen_weights_can_be_pruned_and_stay_frozen() -> None:
    model = Network(nn.BatchNorm2d(16)).requires_grad_(False)
    Branches(model, X).remove({"first": range(8)})
    assert model.first.out_channels == 8
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "whole"),
    [
        (Network(conv(16, 16, 4)), {"first": "grouped convolution between", "between": "grouped convolution between"}),
        (Network(nn.GroupNorm(4, 16)), {"first": "between, whose statistics"}),
        (Network(Glu(), 8), dict.fromkeys(("first", "first#2"), "can only leave with others")),
        (WithImage(nn.Identity(), 17), {"first": "the others change as well"}),
        (TwoOutputs(nn.Identity()), {"second": "defines the output"}),
    ],
)
def test_what_cannot_be_pruned_stays_whole_with_its_reason(model: nn.Module, whole: dict[str, str]) -> None:
    found = whole_branches(model, X)
    assert found.keys() == whole.keys() | {"head"}
    assert all(reason in found[name] for name, reason in whole.items())


def test_a_network_with_nothing_to_prune_is_refused_with_its_layers() -> None:
    model = nn.Sequential(conv(1, 16), nn.GroupNorm(4, 16), nn.ReLU(), conv(16, 1))
    with pytest.raises(UnsupportedModel, match=r"Sequential can be pruned: 0 meets 1, whose statistics .*; 3 defines"):
        whole_branches(model, X)


def test_an_exported_program_has_no_layers_to_prune() -> None:
    exported = torch.export.export(build("mobilenetv2-unet", **EDGE).eval(), (torch.zeros(1, 1, 64, 64),)).module()
    with pytest.raises(UnsupportedModel, match=r"no convolution or linear layer.*give the checkpoint or the factory"):
        whole_branches(exported, torch.zeros(1, 1, 64, 64))


def test_a_network_that_detaches_is_refused() -> None:
    class Detached(Network):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    with pytest.raises(UnsupportedModel, match="Detached"):
        whole_branches(Detached(nn.Identity()), X)


def test_a_fixed_shape_inside_is_found_out() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, 16, 1024).mul(1.5).reshape(1, 16, 32, 32)

    assert "first" in whole_branches(Network(Fixed()), X)


def test_copies_do_not_share_weights_with_the_module() -> None:
    model = Network(nn.BatchNorm2d(16))
    trial = copy.deepcopy(model)
    Branches(trial, X).remove({"first": [0]})
    assert (model.first.out_channels, trial.first.out_channels) == (16, 15)
