"""What many tests share: synthetic frames, and one small segmenter trained and converted for real, once a session."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeseg.cli import main

Invoke = Callable[..., Result]
MakeFrames = Callable[..., Path]

TINY = '''
"""A segmenter of somebody who has never heard of edgeseg."""
import torch
from torch import nn


def block(inputs, outputs, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()
    )


class TinyUNet(nn.Module):
    def __init__(self, channels=1, logits=1):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = block(channels, 8, 2), block(8, 16, 2), block(16, 32, 2)
        self.up, self.d, self.head = nn.UpsamplingBilinear2d(scale_factor=2), block(48, 16), nn.Conv2d(16, logits, 1)
        self.up.align_corners = False

    def forward(self, x):
        b = self.b(self.a(x))
        return self.head(self.d(torch.cat((self.up(self.c(b)), b), 1)))


class Wrapped(TinyUNet):
    def __init__(self, wrap, *args):
        super().__init__(*args)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x))


def tiny():
    return TinyUNet()


def colour():
    return Wrapped(lambda y: y * 8 - 1, 3)


def four_classes():
    return TinyUNet(1, 4)


def dictionary():
    return Wrapped(lambda y: {"aux": y * 0, "out": y})


def pair():
    return Wrapped(lambda y: (y, y * 0))


def probabilities():
    return Wrapped(torch.sigmoid)


def not_a_number():
    return Wrapped(lambda y: y / 0)


def flat():
    return Wrapped(lambda y: y.flatten(1))


def bessel():
    return Wrapped(lambda y: torch.special.bessel_j0(y) - 2)


def word():
    return "no module"


def broken():
    raise RuntimeError("the factory itself is broken")
'''


@pytest.fixture
def invoke() -> Invoke:
    """Run the command line in this process, conversions too: torch is here already, a child would import it again.

    tests/commands/test_isolation.py has conversions as they are by default, and so has `conversion`.
    """

    def run(*args: object) -> Result:
        words = [str(a) for a in args]
        if words[0] == "convert":
            words.insert(1, "--no-isolate")
        return CliRunner().invoke(main, words)

    return run


def ellipse_frame(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """A bright ellipse under speckle, its mask (0 or 255) and its circumference in pixels."""
    a, b = rng.uniform(0.25, 0.4, 2) * min(height, width)
    centre = rng.uniform(0.42, 0.58, 2) * (width, height)
    y, x = np.mgrid[:height, :width]
    angle = rng.uniform(0, math.pi)
    u = (x - centre[0]) * math.cos(angle) + (y - centre[1]) * math.sin(angle)
    v = (y - centre[1]) * math.cos(angle) - (x - centre[0]) * math.sin(angle)
    inside = (u / a) ** 2 + (v / b) ** 2 <= 1
    speckle = rng.gamma(8, 1 / 8, inside.shape)
    frame = np.clip(cv2.GaussianBlur(np.where(inside, 160.0, 50.0) * speckle, (0, 0), 1), 0, 255).astype(np.uint8)
    h = ((a - b) / (a + b)) ** 2
    return frame, inside.astype(np.uint8) * 255, math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))


@pytest.fixture(scope="session")
def make_frames() -> MakeFrames:
    """Write a frames folder: 60 % train, 20 % val, 20 % test; two frames an exam; 0.5 mm pixels."""

    def make(folder: Path, count: int = 40, size: tuple[int, int] = (96, 128), seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        rows = ["file,split,exam_id,pixel_size_mm,hc_mm_reference"]
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        for index in range(count):
            frame, mask, circumference = ellipse_frame(rng, *size)
            file = f"{index:03d}.png"
            cv2.imwrite(str(folder / "images" / file), frame)
            cv2.imwrite(str(folder / "masks" / file), mask)
            split = "train" if index < 0.6 * count else "val" if index < 0.8 * count else "test"
            rows.append(f"{file},{split},exam{index // 2},0.5,{0.5 * circumference:.3f}")
        (folder / "index.csv").write_text("\n".join(rows) + "\n")
        return folder

    return make


@pytest.fixture(scope="session")
def frames(make_frames: MakeFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames with masks and an index."""
    return make_frames(tmp_path_factory.mktemp("data") / "ellipses")


@pytest.fixture(scope="session")
def user(tmp_path_factory: pytest.TempPathFactory, frames: Path) -> Iterator[Path]:
    """A user's folder, on the import path: `usermodels.py` and `tiny.safetensors`, its trained weights."""
    import torch
    from safetensors.torch import save_file

    from edgeseg.dataset import read_folder

    folder = tmp_path_factory.mktemp("user")
    (folder / "usermodels.py").write_text(TINY)
    sys.path.insert(0, str(folder))
    from usermodels import tiny  # type: ignore[import-not-found]

    torch.manual_seed(0)
    torch.set_num_threads(1)
    samples = read_folder(frames).select("train").samples
    images = torch.stack([_small(s.read_frame()) for s in samples])[:, None]
    masks = torch.stack([_small(s.read_mask() * 255) for s in samples])[:, None, ::4, ::4]
    model = tiny().train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(images), masks).backward()
        optimizer.step()
    save_file(model.eval().state_dict(), folder / "tiny.safetensors")
    yield folder
    sys.path.remove(str(folder))


def _small(image: np.ndarray) -> object:
    import torch

    return torch.from_numpy(cv2.resize(image, (96, 64))).float() / 255


@pytest.fixture(scope="session")
def tiny_args(user: Path) -> tuple[object, ...]:
    """The source's arguments on a command line: 64x96, so that a mix-up of height and width shows."""
    return "usermodels:tiny", "--weights", user / "tiny.safetensors", "--size", "64x96"


@pytest.fixture(scope="session")
def conversion(
    tmp_path_factory: pytest.TempPathFactory, tiny_args: tuple[object, ...], frames: Path
) -> tuple[Path, Result]:
    """The path of a bundle with all six artifacts, made by `edgeseg convert`, and what the command said."""
    target = tmp_path_factory.mktemp("bundles") / "tiny.edgeseg"
    args = ["convert", *tiny_args, "--calibration", frames, "-o", target]
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert target.is_dir(), result.output
    return target, result


@pytest.fixture(scope="session")
def bundle(conversion: tuple[Path, Result]) -> Path:
    """The path of that bundle: read only."""
    return conversion[0]


@pytest.fixture
def bundle_copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to spoil."""
    return Path(shutil.copytree(bundle, tmp_path / "copy.edgeseg"))
