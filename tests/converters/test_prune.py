from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeseg.converters.macs import macs
from edgeseg.converters.models.build import build
from edgeseg.converters.models.unet import EDGE
from edgeseg.converters.prune import prune
from edgeseg.converters.prune_report import PruneReport
from edgeseg.converters.recipe import Prune
from edgeseg.dataset import read_folder
from edgeseg.errors import BadInput, ConversionError, UnsupportedModel

X = torch.zeros(1, 1, 64, 96)


@dataclass
class Lab:
    """The user's tiny U-Net, trained on ellipses, and what pruning needs beside it."""

    dense: nn.Module
    train: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    tuned: list[str] = field(default_factory=list)
    kill: str = ""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*(t.split(8) for t in self.train), strict=True)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)

    @torch.no_grad()
    def score(self, module: nn.Module) -> float:
        found, mask = module(self.held[0]) > 0, self.held[1] > 0.5
        return float(2 * (found & mask).sum() / (found.sum() + mask.sum()))

    def fine_tune(self, module: nn.Module, name: str, **options: Any) -> None:
        if name == self.kill:
            raise KeyboardInterrupt
        self.tuned.append(name)
        optimizer = torch.optim.Adam(module.train().parameters(), 0.005)
        for _ in range(4):
            for images, targets in self.batches():
                optimizer.zero_grad()
                self.loss(module(images), targets).backward()
                optimizer.step()
        module.eval()

    def prune(self, module: nn.Module | None = None, **options: Any) -> tuple[nn.Module, PruneReport]:
        called = {k: options.pop(k) for k in ("state", "latency", "batches", "score") if k in options}
        module = copy.deepcopy(self.dense) if module is None else module
        chosen = replace(Prune(round_to=4, steps=2, protect=False), **options)
        means: dict[str, Any] = {"batches": self.batches, "score": self.score} | called
        return module, prune(module, X, chosen, loss=self.loss, fine_tune=self.fine_tune, **means)


@pytest.fixture
def lab(user: Path, frames: Path) -> Lab:
    from usermodels import tiny  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    dense = tiny()
    dense.load_state_dict(load_file(user / "tiny.safetensors"))
    data = read_folder(frames)
    train, held = (data.select(split).samples for split in ("train", "val"))
    return Lab(dense.eval(), pairs(train), pairs(held))


def pairs(samples: Any) -> tuple[Tensor, Tensor]:
    def small(image: Any) -> Tensor:
        return torch.from_numpy(cv2.resize(image, (96, 64))).float() / 255

    images = torch.stack([small(s.read_frame()) for s in samples])[:, None]
    return images, torch.stack([small(s.read_mask() * 255) for s in samples])[:, None, ::4, ::4]


def untrained(module: nn.Module, **options: Any) -> PruneReport:
    """Only the shapes matter."""
    chosen = Prune(**{"importance": "magnitude", "protect": False, "steps": 2} | options)
    return prune(
        module,
        torch.zeros(1, 1, 64, 64),
        chosen,
        batches=list,
        loss=nn.functional.mse_loss,
        fine_tune=lambda module, name, **options: None,
        score=lambda module: 0.5,
    )


def odd_layers(module: nn.Module, multiple: int) -> list[str]:
    """Convolutions with a channel count that is no multiple, apart from the network's input and its head."""
    convolutions = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    first = convolutions[0][0]
    return [
        name
        for name, m in convolutions
        if (name != first and m.in_channels % multiple) or (name != "head" and m.out_channels % multiple)
    ]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2-unet", {}),
        ("mobilenetv2-unet", EDGE),
        ("efficientnet-lite0-unet", {}),
        ("edge-unet", {}),
    ],
)
def test_every_layer_of_a_reference_model_ends_at_a_multiple(name: str, options: dict[str, Any], scope: str) -> None:
    torch.manual_seed(0)
    model = build(name, **options).eval()
    x = torch.rand(2, 1, 64, 64)
    shape = model(x).shape
    report = untrained(model, ratio=0.5, scope=scope)
    assert odd_layers(model, 8) == []
    assert model(x).shape == shape
    assert (report.channels["head"][0], report.whole) == (model.head.out_channels, {"head": "defines the output"})
    assert 0.45 < report.reached < 0.55
    assert report.after.macs == macs(model, x[:1]) < 0.6 * report.before.macs
    assert report.after.parameters == sum(p.numel() for p in model.parameters()) < report.before.parameters
    assert all(after == model.get_submodule(layer).out_channels for layer, (_, after) in report.channels.items())


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_a_users_own_module_keeps_its_dice(lab: Lab, scope: str, importance: str) -> None:
    module, report = lab.prune(ratio=0.5, scope=scope, importance=importance)
    assert odd_layers(module, 4) == []
    assert module(X).shape == lab.dense(X).shape
    assert lab.tuned == ["prune-1", "prune-2"]
    assert report.before.score == lab.score(lab.dense) > 0.9
    assert report.after.score == lab.score(module) > report.before.score - 0.05
    assert [r.after.macs for r in report.rounds] == sorted({r.after.macs for r in report.rounds}, reverse=True)
    assert not module.training


def test_taylor_finds_channels_that_do_nothing_and_magnitude_does_not(lab: Lab) -> None:
    dead = [1, 4, 6, 7]
    with torch.no_grad():
        lab.dense.a[1].bias[dead] = -100.0
        lab.dense.a[0].weight[dead] *= 10
    lab.fine_tune = lambda module, name, **options: None  # type: ignore[method-assign]
    ignore = ("b", "c", "d")
    taylor, _ = lab.prune(ratio=0.5, ignore=ignore)
    magnitude, _ = lab.prune(ratio=0.5, ignore=ignore, importance="magnitude")
    x, expected = lab.held[0], lab.dense(lab.held[0])
    assert taylor.a[0].out_channels == magnitude.a[0].out_channels == 4
    assert torch.allclose(taylor(x), expected, atol=1e-4)
    assert not torch.allclose(magnitude(x), expected, atol=1e-1)


def test_global_takes_first_what_matters_least(lab: Lab) -> None:
    with torch.no_grad():
        lab.dense.c[1].weight.mul_(1e-4)
        lab.dense.c[1].bias.mul_(1e-4)
    module, _ = lab.prune(ratio=0.3, scope="global")
    assert (module.a[0].out_channels, module.c[0].out_channels) == (8, 12)


def test_a_macs_target_is_met_and_not_overshot(lab: Lab) -> None:
    _, report = lab.prune(macs=0.6)
    assert (report.target, report.wanted, report.met) == ("macs", 0.6, True)
    assert 0.5 < report.reached <= 0.6
    assert report.reached == report.after.macs / report.before.macs


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_macs_target_out_of_reach_ends_at_the_narrowest_with_its_figure(lab: Lab, scope: str) -> None:
    module, report = lab.prune(macs=0.001, scope=scope)
    assert not report.met
    assert 0.001 < report.reached < 0.3
    assert all(after == 4 for layer, (_, after) in report.channels.items() if layer != "head")
    assert report.after.macs == macs(module, X)


def milliseconds(module: nn.Module) -> float:
    """Torch eager on a frame large enough to be measured; the fastest of many, as others use this machine too."""
    x = torch.zeros(1, 1, 512, 512)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(25):
            start = time.perf_counter()
            module(x)
            best = min(best, time.perf_counter() - start)
    return best * 1e3


def test_a_latency_target_is_measured_and_met(lab: Lab) -> None:
    dense = milliseconds(lab.dense)
    measured: list[float] = []

    def latency(module: nn.Module) -> float:
        assert not module.training
        measured.append(milliseconds(module))
        return measured[-1]

    module, report = lab.prune(latency_ms=0.8 * dense, latency=latency)
    assert report.target == "latency_ms"
    assert report.met
    assert report.reached == report.after.latency_ms == measured[-1] <= 0.8 * dense
    assert report.before.latency_ms == measured[0]
    assert macs(module, X) < macs(lab.dense, X)
    assert len(measured) <= 8


def test_a_latency_target_out_of_reach_says_the_nearest(lab: Lab) -> None:
    _, report = lab.prune(latency_ms=1e-6, latency=milliseconds)
    assert (report.met, report.reached) == (False, report.after.latency_ms)
    assert report.reached > 1e-6


def test_sensitive_layers_are_protected(lab: Lab) -> None:
    _, first = lab.prune(ratio=0.5, protect=1.0)
    drops = {p.branch: p.drop for p in first.sensitivity}
    assert drops.keys() == {"a.0", "b.0", "c.0", "d.0"}
    assert not any(p.protected for p in first.sensitivity)
    worst = max(drops, key=lambda name: drops[name])
    limit = sorted(drops.values())[-2]
    module, report = lab.prune(ratio=0.5, protect=max(limit, 0.0))
    assert {p.branch for p in report.sensitivity if p.protected} == {worst}
    assert f"{drops[worst]:.4f} Dice" in report.whole[worst]
    dense_widths = {name: m.out_channels for name, m in lab.dense.named_modules() if isinstance(m, nn.Conv2d)}
    widths = {name: module.get_submodule(name).out_channels for name in dense_widths}
    assert {name for name in widths if widths[name] == dense_widths[name]} == {worst, "head"}


def test_the_scan_tries_the_share_it_is_told(lab: Lab) -> None:
    _, report = lab.prune(ratio=0.5, protect=1.0, probe=0.25)
    assert {p.branch: (p.channels, p.removed) for p in report.sensitivity} == {
        "a.0": (8, 4),
        "b.0": (16, 4),
        "c.0": (32, 8),
        "d.0": (16, 4),
    }


def test_ignored_layers_stay_as_they_are(lab: Lab) -> None:
    module, report = lab.prune(ratio=0.5, ignore=("b", "d.0"))
    assert (module.b[0].out_channels, module.d[0].out_channels, module.c[0].out_channels) == (16, 16, 16)
    assert report.whole["b.0"] == "is ignored"


def run_killed(lab: Lab, state: Path, at: str, **options: Any) -> None:
    lab.kill = at
    with pytest.raises(KeyboardInterrupt):
        lab.prune(state=state, **options)
    lab.kill = ""


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_killed_run_goes_on_after_its_last_round(lab: Lab, scope: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"macs": 0.5, "steps": 3, "protect": 0.2, "scope": scope}
    whole, expected = lab.prune(**options)
    state = tmp_path / "work" / "prune.safetensors"
    lab.tuned = []
    run_killed(lab, state, "prune-2", **options)
    run_killed(lab, state, "prune-3", **options)
    module, report = lab.prune(state=state, **options)
    assert lab.tuned == ["prune-1", "prune-2", "prune-3"]
    assert report == expected
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in module.state_dict().items())
    # Once more: nothing is left to do.
    lab.tuned = []
    assert lab.prune(state=state, **options)[1] == expected
    assert lab.tuned == []


def test_a_state_of_another_run_is_refused(lab: Lab, tmp_path: Path) -> None:
    state = tmp_path / "prune.safetensors"
    run_killed(lab, state, "prune-2", ratio=0.5)
    with pytest.raises(BadInput, match=r"of a run with ratio 0\.5, not 0\.25: delete .*prune\.safetensors"):
        lab.prune(ratio=0.25, state=state)
    with torch.no_grad():
        lab.dense.head.bias.add_(1)
    with pytest.raises(BadInput, match="is the state of a run with weights"):
        lab.prune(ratio=0.5, state=state)
    state.write_bytes(b"half a fi")
    with pytest.raises(BadInput, match=r"is not the state of a pruning run: delete"):
        lab.prune(ratio=0.5, state=state)


Call = Callable[[Lab], object]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lab: lab.prune(ratio=0.5, ignore=("heda",)), "'heda', which is no layer .* did you mean 'head'"),
        (lambda lab: lab.prune(ratio=0.5, batches=list), "needs labelled frames and there are none"),
        (lambda lab: lab.prune(ratio=0.01), r"ratio 0\.01 removes nothing at round_to 4"),
        (lambda lab: lab.prune(macs=0.5, round_to=64), r"macs 0\.5 removes nothing at round_to 64"),
        (lambda lab: lab.prune(ratio=0.5, protect=-1.0), r"every layer stays whole .*a\.0 is protected.*raise protect"),
        (lambda lab: lab.prune(latency_ms=1.0), "latency_ms needs a runtime"),
        (lambda lab: lab.prune(latency_ms=1e6, latency=milliseconds), "ask for less"),
        (lambda lab: lab.prune(ratio=0.5, macs=0.5), "has 2 targets, expected exactly one"),
    ],
)
def test_bad_options(lab: Lab, call: Call, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call(lab)
    assert lab.tuned == []


def test_a_loss_that_is_not_finite_is_an_error(lab: Lab) -> None:
    lab.loss = lambda logits, targets: (logits.sum() * 0).log()  # type: ignore[method-assign]
    with pytest.raises(ConversionError, match="gradient of the loss is not finite"):
        lab.prune(ratio=0.5)


def test_an_exported_program_is_refused(lab: Lab) -> None:
    exported = torch.export.export(lab.dense, (X,)).module()
    with pytest.raises(UnsupportedModel, match="no convolution or linear layer"):
        lab.prune(exported, ratio=0.5)
