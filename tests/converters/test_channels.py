from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.converters.branches import Branches
from edgeseg.converters.channels import fit_channels
from edgeseg.converters.checkpoint import load_checkpoint, read_info, save_checkpoint
from edgeseg.converters.models.build import build
from edgeseg.converters.models.unet import EDGE
from edgeseg.converters.source import SourceOptions, load_source
from edgeseg.errors import ConversionError
from edgeseg.types import Preprocess


def network(width: int = 8, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, kernel, padding=1),
        nn.BatchNorm2d(width),
        nn.PReLU(width),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.ConvTranspose2d(width, 2 * width, 2, 2),
        nn.InstanceNorm2d(2 * width, affine=True),
        nn.Flatten(),
        nn.Linear(2 * width * 64, 3),
    ).eval()


def pruned(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy without a half of all channels."""
    branches = Branches(copy.deepcopy(module).eval(), example)
    free = [name for name, branch in branches.items() if not branch.whole]
    branches.remove({name: range(0, len(branches[name]), 2) for name in free})
    return branches.module


def test_every_kind_of_layer_is_made_as_narrow_as_its_weights() -> None:
    narrow, wide, x = network(4), network(8), torch.rand(2, 1, 4, 4)
    fit_channels(wide, narrow.state_dict())
    wide.load_state_dict(narrow.state_dict())
    assert torch.equal(wide(x), narrow(x))
    assert (wide[3].groups, wide[4].in_channels, wide[4].out_channels, wide[7].in_features) == (4, 4, 8, 512)
    assert (wide[1].num_features, wide[2].num_parameters, wide[5].num_features) == (4, 4, 8)


def test_what_fits_already_is_left_alone() -> None:
    module = network()
    before = list(module.parameters())
    fit_channels(module, network().state_dict())
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))


def test_frozen_weights_stay_frozen() -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    fit_channels(module, network(4).state_dict())
    assert [p.requires_grad for p in module[0].parameters()] == [False, True]


@pytest.mark.parametrize(
    ("spoil", "layer"),
    [
        (lambda t: t.pop("4.weight"), "4.weight"),
        (lambda t: t.update({"0.weight": torch.zeros(16, 1, 3, 3)}), "0: weight"),
        (lambda t: t.update({"0.weight": torch.zeros(4, 1, 1, 1)}), "0: weight"),
        (lambda t: t.update({"0.weight": torch.zeros(4, 9)}), "0: weight"),
        (lambda t: t.update({"0.bias": torch.zeros(3)}), "0: weight"),
        (lambda t: t.update({"1.running_var": torch.ones(5)}), "1: weight"),
        (lambda t: t.update({"7.weight": torch.zeros(0, 512)}), "7: weight"),
    ],
)
def test_what_cannot_be_a_pruned_form_is_named_and_changes_nothing(spoil: object, layer: str) -> None:
    tensors = dict(network(4).state_dict())
    spoil(tensors)  # type: ignore[operator]
    module = network()
    shapes = [p.shape for p in module.parameters()]
    with pytest.raises(ConversionError, match=layer):
        fit_channels(module, tensors)
    assert [p.shape for p in module.parameters()] == shapes


def test_a_grouped_convolution_has_no_pruned_form() -> None:
    with pytest.raises(ConversionError, match=r"Conv2d: weight has shape \(4, 4, 3, 3\)"):
        fit_channels(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 3, groups=2).state_dict())


@pytest.mark.parametrize("options", [EDGE, {}, {"classes": 4}])
def test_a_pruned_checkpoint_loads_as_it_was_saved(options: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 64, 96)
    dense = build("mobilenetv2-unet", **options).eval()
    model = pruned(dense, x)
    for name, saved in (("dense", dense), ("pruned", model)):
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, saved, Preprocess(64, 96), ("background", "head"), {"note": 1})
        loaded, info = load_checkpoint(path)
        assert info.pruned == (name == "pruned")
        assert torch.equal(loaded(x), saved(x))
        assert not loaded.training
    assert (tmp_path / "pruned.safetensors").stat().st_size < 0.5 * (tmp_path / "dense.safetensors").stat().st_size


def test_a_checkpoint_from_before_pruning_still_loads() -> None:
    import edgeseg.samples

    (path,) = Path(edgeseg.samples.__file__).parent.glob("mobilenetv2-unet-hc18.safetensors")
    assert not read_info(path).pruned
    assert load_checkpoint(path)[0](torch.zeros(1, 1, 64, 64)).isfinite().all()


def test_narrow_weights_without_the_note_that_they_are_pruned_are_refused(tmp_path: Path) -> None:
    model = build("mobilenetv2-unet", **EDGE)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, Preprocess(64, 64), ("background", "head"), {})
    narrow = pruned(model, torch.zeros(1, 1, 64, 64))
    metadata = {"edgeseg": _metadata(path)}
    save_file({k: v.contiguous() for k, v in narrow.state_dict().items()}, path, metadata)
    with pytest.raises(ConversionError, match="do not fit its architecture"):
        load_checkpoint(path)


def _metadata(path: Path) -> str:
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        return str(file.metadata()["edgeseg"])


def test_a_factory_takes_pruned_weights(user: Path, tmp_path: Path) -> None:
    from usermodels import tiny  # type: ignore[import-not-found]

    dense = load_source("usermodels:tiny", SourceOptions(user / "tiny.safetensors", (64, 96)))
    x = torch.rand(1, 1, 64, 96)
    narrow = pruned(dense.network.module, x)  # type: ignore[arg-type]
    save_file(narrow.state_dict(), tmp_path / "pruned.safetensors")
    source = load_source("usermodels:tiny", SourceOptions(tmp_path / "pruned.safetensors", (64, 96)))
    assert torch.allclose(source.network.module(x), narrow(x))  # type: ignore[operator]
    assert source.network.module.c[0].out_channels == tiny().c[0].out_channels // 2  # type: ignore[union-attr,index]


@pytest.mark.parametrize("factory", ["four_classes", "colour"])
def test_pruning_changes_neither_input_nor_output_of_a_factory(factory: str, user: Path) -> None:
    with pytest.raises(ConversionError, match=f"does not fit usermodels:{factory}"):
        load_source(f"usermodels:{factory}", SourceOptions(user / "tiny.safetensors", (64, 96)))
