from __future__ import annotations

import torch
from torch import nn

from edgeseg.converters.macs import macs, parameters
from edgeseg.converters.models.build import build
from edgeseg.converters.models.unet import EDGE


def test_counts_of_known_layers() -> None:
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
    assert macs(convolution, torch.zeros(3, 4, 8, 8)) == 8 * 2 * 9 * 4 * 4
    assert parameters(convolution) == 8 * 2 * 9 + 8
    assert macs(nn.ConvTranspose2d(4, 8, 2, stride=2), torch.zeros(1, 4, 8, 8)) == 4 * 8 * 4 * 64
    assert macs(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.zeros(2, 3, 2, 2)) == 60


def test_a_layer_that_runs_twice_counts_twice() -> None:
    shared = nn.Conv2d(2, 2, 1)
    assert macs(nn.Sequential(shared, shared), torch.zeros(1, 2, 3, 3)) == 2 * 4 * 9


def test_an_exported_program_counts_as_its_module() -> None:
    model, example = build("mobilenetv2-unet", **EDGE).eval(), torch.zeros(1, 1, 64, 64)
    exported = torch.export.export(model, (example,)).module()
    assert macs(exported, example) == macs(model, example) > 1e6


def test_modes_and_statistics_are_left_as_they_were() -> None:
    model = build("mobilenetv2-unet", **EDGE).train()
    model.head.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert 3e8 < macs(model, torch.zeros(1, 1, 256, 256)) < 5e8
    assert model.training
    assert not model.head.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
