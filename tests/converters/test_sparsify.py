"""NNCF pruning: real zeros in a plain module, as many as asked, without the chatter and the wrappers."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor, nn

from edgeseg.converters.models.build import build
from edgeseg.converters.recipe import Sparsify
from edgeseg.converters.sparsify import sparsify
from edgeseg.dataset import read_folder
from edgeseg.errors import UnsupportedModel

EXAMPLE = torch.zeros(1, 1, 64, 96)
STEPS = 40


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(frames: Path) -> tuple[Tensor, Tensor]:
    """Normalised images [24, 1, 64, 96] and masks at stride 4."""
    samples = read_folder(frames).select("train").samples
    pairs = [(s.read_frame(), s.read_mask() * 255) for s in samples]
    images, masks = (torch.stack([_small(p[i]) for p in pairs])[:, None] for i in (0, 1))
    return images, masks[..., ::4, ::4]


def _small(image: object) -> Tensor:
    return torch.from_numpy(cv2.resize(image, (96, 64))).float() / 255


@pytest.fixture
def trained(user: Path) -> nn.Module:
    from safetensors.torch import load_file
    from usermodels import tiny

    module = tiny()
    module.load_state_dict(load_file(user / "tiny.safetensors"))
    return module.eval()


class FineTune:
    """A small real one: AdamW, channels last, gradients clipped, as `converters.fit` does it."""

    def __init__(self, data: tuple[Tensor, Tensor], steps: int = STEPS, learning_rate: float = 5e-3) -> None:
        self.data, self.steps, self.learning_rate = data, steps, learning_rate
        self.calls: list[str] = []
        self.kill_at: int | None = None
        self.state: bytes | None = None

    def __call__(
        self,
        module: nn.Module,
        name: str,
        *,
        on_step: Callable[[int, int], None] | None = None,
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        self.calls.append(name)
        images, masks = self.data
        module.to(memory_format=torch.channels_last)
        module.train()
        optimizer = torch.optim.AdamW(module.parameters(), self.learning_rate)
        first = 1
        if self.state:
            saved = torch.load(io.BytesIO(self.state), weights_only=True)
            module.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            first = saved["step"] + 1
        for step in range(first, self.steps + 1):
            torch.manual_seed(step)
            picks = torch.randperm(len(images))[:8]
            loss = nn.functional.binary_cross_entropy_with_logits(module(images[picks]), masks[picks])
            optimizer.zero_grad()
            (loss + penalty() if penalty else loss).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            if on_step:
                on_step(step, self.steps)
            if step == self.kill_at:
                stream = io.BytesIO()
                torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, stream)
                self.state, self.kill_at = stream.getvalue(), None
                raise KeyboardInterrupt
        module.eval()


def nothing(module: nn.Module, name: str, **callbacks: object) -> None:
    """A fine-tuning that was done before, or does nothing."""


def dice(module: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        found = module(data[0]) > 0
    return float(2 * (found & (data[1] > 0.5)).sum() / (found.sum() + (data[1] > 0.5).sum()))


def batches_of(data: tuple[Tensor, Tensor]) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(data[0].split(8))


def zeros(module: nn.Module) -> dict[str, float]:
    return {n: float((p == 0).float().mean()) for n, p in module.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize("schedule", ["exponential", "multistep"])
@pytest.mark.parametrize("mode", ["magnitude-local", "magnitude-global"])
def test_magnitude_gives_the_zeros_asked_for_and_keeps_the_accuracy(
    trained: nn.Module, data: tuple[Tensor, Tensor], mode: str, schedule: str
) -> None:
    before = copy.deepcopy(trained.state_dict())
    options = Sparsify(mode=mode, ratio=0.7, schedule=schedule)  # type: ignore[arg-type]
    fine_tune = FineTune(data)
    thin, report = sparsify(trained, EXAMPLE, options, fine_tune=fine_tune, batches=batches_of(data))
    assert fine_tune.calls == ["sparsify"]
    assert type(thin) is type(trained)
    assert list(thin.state_dict()) == list(trained.state_dict())
    assert not thin.training
    assert "forward" not in vars(thin)
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    assert report.reached == pytest.approx(0.7, abs=0.02)
    assert (report.asked, report.untouched) == (0.7, ())
    found = zeros(thin)
    assert {n: z / w for n, (z, w) in report.layers.items()} == pytest.approx(found)
    assert report.zeros == sum(int((p == 0).sum()) for p in thin.parameters() if p.ndim > 1)
    assert report.parameters == sum(p.numel() for p in thin.parameters())
    shares = sorted(found.values())
    assert shares[-1] - shares[0] < 0.07 if mode == "magnitude-local" else shares[-1] - shares[0] > 0.1
    assert dice(thin, data) > dice(trained, data) - 0.03


def test_zeros_have_no_sign(trained: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    thin, _ = sparsify(trained, EXAMPLE, Sparsify(ratio=0.6), fine_tune=nothing, batches=batches_of(data))
    weight = torch.cat([p.flatten() for p in thin.parameters()])
    assert (weight == 0).sum() > 1000
    assert not torch.signbit(weight[weight == 0]).any()


@pytest.mark.parametrize("mode", ["magnitude-global", "regularization"])
def test_zeros_come_even_where_the_fine_tuning_took_no_step(
    trained: nn.Module, data: tuple[Tensor, Tensor], mode: str
) -> None:
    options = Sparsify(mode=mode, ratio=0.5)  # type: ignore[arg-type]
    _, report = sparsify(trained, EXAMPLE, options, fine_tune=nothing, batches=batches_of(data))
    assert report.reached == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("schedule", "shares"), [("exponential", 12), ("multistep", 4)])
def test_the_share_grows_step_by_step_and_then_stands(
    trained: nn.Module, data: tuple[Tensor, Tensor], schedule: str, shares: int
) -> None:
    seen: list[float] = []

    def watching(module: nn.Module, name: str, *, on_step: Callable[[int, int], None], **_: object) -> None:
        masks = [b for n, b in module.named_buffers() if n.endswith("binary_mask")]
        for step in range(1, 101):
            on_step(step, 100)
            seen.append(1 - float(torch.cat([m.flatten() for m in masks]).float().mean()))

    options = Sparsify(ratio=0.8, schedule=schedule)  # type: ignore[arg-type]
    sparsify(trained, EXAMPLE, options, fine_tune=watching, batches=batches_of(data))
    assert seen == sorted(seen)
    assert shares <= len(set(seen)) <= 21
    assert seen[58] < 0.79
    assert seen[59:] == pytest.approx([0.8] * 41, abs=0.01)


def test_regularization_learns_where_the_zeros_go(trained: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    options = Sparsify(mode="regularization", ratio=0.6, learning_rate=2e-3)
    fine_tune = FineTune(data, steps=150, learning_rate=2e-3)
    thin, report = sparsify(trained, EXAMPLE, options, fine_tune=fine_tune, batches=batches_of(data))
    assert report.reached == pytest.approx(0.6, abs=0.001)
    assert list(thin.state_dict()) == list(trained.state_dict())
    assert dice(thin, data) > dice(trained, data) - 0.03
    by_magnitude, _ = sparsify(trained, EXAMPLE, options, fine_tune=nothing, batches=batches_of(data))
    moved = [((p == 0) != (q == 0)).sum() for p, q in zip(thin.parameters(), by_magnitude.parameters(), strict=True)]
    assert sum(moved) > 50


def test_regularization_starts_from_magnitudes_whatever_the_order_of_layers() -> None:
    model = build("mobilenetv2-unet").eval()
    layers = []
    for mode in ("regularization", "magnitude-global"):
        options = Sparsify(mode=mode, ratio=0.5, adaptation_frames=0)  # type: ignore[arg-type]
        layers.append(sparsify(model, EXAMPLE, options, fine_tune=nothing, batches=list)[1].layers)
    for name, (zeros, weights) in layers[0].items():
        assert zeros / weights == pytest.approx(layers[1][name][0] / weights, abs=0.01)


@pytest.mark.parametrize("mode", ["magnitude-global", "regularization"])
def test_a_killed_run_goes_on_to_the_same_weights(trained: nn.Module, data: tuple[Tensor, Tensor], mode: str) -> None:
    options = Sparsify(mode=mode, ratio=0.6, learning_rate=5e-3)  # type: ignore[arg-type]

    def run(fine_tune: FineTune) -> dict[str, Tensor]:
        return sparsify(trained, EXAMPLE, options, fine_tune=fine_tune, batches=batches_of(data))[0].state_dict()

    whole = run(FineTune(data))
    killed = FineTune(data)
    killed.kill_at = 17
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    again = run(killed)
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_batch_norm_is_adapted_on_as_many_frames_as_asked(trained: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    taken: list[int] = []

    def batches() -> Iterator[Tensor]:
        for batch in data[0].split(8):
            taken.append(len(batch))
            yield batch

    def means(frames: int) -> Tensor:
        options = Sparsify(ratio=0.8, adaptation_frames=frames)
        return sparsify(trained, EXAMPLE, options, fine_tune=nothing, batches=batches)[0].c[1].running_mean

    assert torch.equal(means(0), trained.c[1].running_mean)
    assert taken == []
    assert not torch.equal(means(9), trained.c[1].running_mean)
    assert taken == [8, 8]
    assert not torch.allclose(means(24), means(9))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2-unet", {}),
        ("mobilenetv2-unet", {"decoder": (96, 48, 32), "join": "add", "upsample": "nearest"}),
        ("efficientnet-lite0-unet", {"classes": 4}),
    ],
)
def test_the_reference_segmenters(name: str, options: dict[str, object]) -> None:
    model = build(name, **options).eval()
    thin, report = sparsify(model, EXAMPLE, Sparsify(ratio=0.9, adaptation_frames=0), fine_tune=nothing, batches=list)
    assert report.reached == pytest.approx(0.9, abs=0.01)
    assert report.untouched == ()
    assert len(report.layers) == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert thin(EXAMPLE).shape == model(EXAMPLE).shape


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such kernel\nand more")


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(1, 4, 1)
        self.inner = nn.Sequential(nn.ReLU(), Failing())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.before(x))


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.kernel)


class Computed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.conv2d(x, self.kernel * 2))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Outer, r"Outer in layer inner\.1: no such kernel: leave out"),
        (nn.ReLU, "it has no convolutions or linear layers|No pruned tensors"),
        (Constant, "kernel is a constant, no parameter"),
        (lambda: torch.jit.trace(nn.Conv2d(1, 1, 1), EXAMPLE), "TorchScript"),
    ],
)
@pytest.mark.parametrize("mode", ["magnitude-local", "regularization"])
def test_a_graph_that_cannot_be_pruned_is_named(make: Callable[[], nn.Module], reason: str, mode: str) -> None:
    options = Sparsify(mode=mode)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        sparsify(make().eval(), EXAMPLE, options, fine_tune=nothing, batches=list)
    assert "\n" not in str(caught.value)


def test_weights_out_of_reach_are_named() -> None:
    _, report = sparsify(Computed(), EXAMPLE, Sparsify(), fine_tune=nothing, batches=list)
    assert report.untouched == ("kernel",)
    assert set(report.layers) == {"head.weight"}


CHILD = """
import torch
from torch import nn
from edgeseg.converters.recipe import Sparsify
from edgeseg.converters.sparsify import sparsify

def masks(module, name, **callbacks):
    print(*(n for n, _ in module.named_parameters() if n.endswith("mask")))

net = nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(9)), nn.BatchNorm2d(1)).eval()
options = Sparsify(mode="regularization")
sparsify(net, torch.zeros(1, 1, 32, 32), options, fine_tune=masks, batches=lambda: [torch.rand(4, 1, 32, 32)])
"""


def test_nncf_is_quiet_and_its_masks_come_in_the_same_order_in_every_process() -> None:
    outputs = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert done.stderr == ""
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 1


def test_what_was_done_is_said(trained: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    lines: list[str] = []
    options = replace(Sparsify(), ratio=0.5)
    sparsify(trained, EXAMPLE, options, fine_tune=nothing, batches=batches_of(data), report=lines.append)
    assert lines[0] == "sparsify: 5 tensors, magnitude-global to 50.0% zeros"
    assert lines[-1].endswith("weights are zero, 50.0% were asked for")
