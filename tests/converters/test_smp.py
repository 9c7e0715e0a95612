"""A model of segmentation_models_pytorch, brought by a user's own factory, in an environment of its own.

It hard-imports torchvision, whose wheels are built against another torch than the CPU one: the three packages are
installed without their dependencies beside this environment, and the user's file declares the operators that
torchvision fails to register.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import edgeseg

FACTORY = '''
import torch

OPERATORS = ("nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
             "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d",
             "_deform_conv2d_backward")
library = torch.library.Library("torchvision", "DEF")
for name in OPERATORS:
    library.define(name + "(Tensor x) -> Tensor")

import segmentation_models_pytorch as smp


def unet():
    return smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, decoder_channels=(64, 32, 16, 16, 8))
'''

TRAIN = """
import sys
import torch
from usersmp import unet
from edgeseg.dataset import read_folder
from edgeseg.preprocess import to_input
from edgeseg.types import Preprocess

torch.manual_seed(0)
torch.set_num_threads(1)
size = Preprocess(64, 96)
samples = read_folder(sys.argv[1]).select("train").samples[:16]
images = torch.cat([torch.from_numpy(to_input(s.read_frame(), size)) for s in samples]) / 255
masks = torch.cat([torch.from_numpy(to_input(s.read_mask() * 255, size)) for s in samples]) / 255
model = unet().train()
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(80):
    optimizer.zero_grad()
    torch.nn.functional.binary_cross_entropy_with_logits(model(images), masks).backward()
    optimizer.step()
torch.save(model.state_dict(), sys.argv[2])
"""

PRUNE = """
import sys
from pathlib import Path
import torch
from torch import nn
from usersmp import unet
from edgeseg.converters.prune import prune
from edgeseg.converters.recipe import Prune
from edgeseg.converters.source import SourceOptions, load_source

torch.manual_seed(0)
torch.set_num_threads(1)
model, x = unet().eval(), torch.rand(2, 1, 64, 96)
shape = model(x).shape
report = prune(
    model,
    x[:1],
    Prune(ratio=0.5, steps=2),
    batches=lambda: [(x, torch.ones(shape))],
    loss=nn.functional.binary_cross_entropy_with_logits,
    fine_tune=lambda module, name: None,
    score=lambda module: 0.5,
)
assert model(x).shape == shape
(head,) = (name for name, reason in report.whole.items() if reason == "defines the output")
assert head == "segmentation_head.0" and len(report.whole) == 1, report.whole
odd = [name for name, (_, after) in report.channels.items() if after % 8 and name != head]
assert not odd, odd
assert report.after.macs < 0.4 * report.before.macs, report
torch.save(model.state_dict(), sys.argv[1])
again = load_source("usersmp:unet", SourceOptions(Path(sys.argv[1]), (64, 96))).network.module
assert torch.allclose(again(x), model(x), atol=1e-5)
"""

VERSIONS = {(2, 11): "0.26.0", (2, 12): "0.27.0", (2, 13): "0.28.0"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which a python finds segmentation_models_pytorch and the user's file."""
    folder = tmp_path_factory.mktemp("smp")
    torchvision = VERSIONS[tuple(int(n) for n in torch.__version__.split(".")[:2])]  # type: ignore[index]
    packages = ("segmentation-models-pytorch==0.6.0", "timm==1.0.31", f"torchvision=={torchvision}")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *packages]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot get {', '.join(packages)} here")
    (folder / "usersmp.py").write_text(FACTORY)
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], code: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_it_can_be_pruned_and_loaded_again(environment: dict[str, str], tmp_path: Path) -> None:
    done = python(environment, PRUNE, tmp_path / "pruned.pth")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_all_six_artifacts_pass(
    environment: dict[str, str], frames: Path, tmp_path: Path
) -> None:
    trained = python(environment, TRAIN, frames, tmp_path / "smp.pth")
    assert trained.returncode == 0, trained.stderr[-2000:]
    source = ("usersmp:unet", "--weights", tmp_path / "smp.pth", "--size", "64x96")
    options = ("--calibration", frames, "-o", tmp_path / "smp.edgeseg")
    done = python(environment, "from edgeseg.cli import main; main()", "convert", *source, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(edgeseg.open_bundle(tmp_path / "smp.edgeseg").artifacts) == 6
