"""Are clean bundles let through? `python tools/clean_conversions.py FRAMES [--seeds 20] [--first 0]`.

For each seed the embedded student is trained on for a while (order, augmentation and so the weights are the seed's
own), converted to all six artifacts with a calibration set drawn by the seed, and verified: the gates at conversion,
the self-test on the golden frames, and the gates on the test frames. Printed is whatever was refused; exit 1 if
anything was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgeseg import samples
from edgeseg.converters.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.converters.source import logits_of
from edgeseg.converters.train import segmentation_loss
from edgeseg.converters.training_data import TrainingData
from edgeseg.dataset import FrameFolder, read_folder

LOGIT_STRIDE = 4  # of the student
STEPS, BATCH, RATE = 60, 8, 1e-3


def train(seed: int, learn: FrameFolder, target: Path) -> None:
    """The student, changed by some steps of training."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    module, info = load_checkpoint(samples.STUDENT)
    data = TrainingData(learn, info.preprocess, len(info.classes), LOGIT_STRIDE, "strong")
    loss_of = segmentation_loss(len(info.classes))
    optimizer = torch.optim.Adam(module.train().parameters(), RATE)
    step = 0
    while step < STEPS:
        for images, masks in data.batches(BATCH, seed):
            optimizer.zero_grad()
            logits = logits_of(module(images))
            loss_of(logits, masks).backward()
            optimizer.step()
            step += 1
            if step == STEPS:
                break
    save_checkpoint(target, module.eval(), info.preprocess, info.classes, {"seed": seed})


def edgeseg(*words: str | Path) -> str:
    """Run the command line; what it said where it failed, else nothing."""
    command = [sys.executable, "-m", "edgeseg.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{words[0]} failed: {done.stdout[-2000:]}{done.stderr[-500:]}"


def trial(seed: int, frames: Path, learn: FrameFolder, work: Path) -> list[str]:
    """What was refused of one seed."""
    checkpoint, bundle, calibration = work / "model.safetensors", work / "model.edgeseg", work / "calibration"
    train(seed, learn, checkpoint)
    (calibration / "images").mkdir(parents=True)
    for index in np.random.default_rng(seed).choice(len(learn), min(64, len(learn)), replace=False):
        image = learn.samples[index].image
        (calibration / "images" / image.name).symlink_to(image.resolve())
    said = [edgeseg("convert", checkpoint, "--calibration", calibration, "--eval", frames, "-o", bundle)]
    if not said[0]:
        said += [edgeseg("verify", bundle), edgeseg("verify", bundle, "--data", frames, "--split", "test")]
    return [line for line in said if line]


def main() -> int:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--seeds", type=int, default=20, help="How many.")
    parser.add_argument("--first", type=int, default=0, help="The first of them.")
    arguments = parser.parse_args()
    learn = read_folder(arguments.frames).select("train")
    refused = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as work:
            said = trial(seed, arguments.frames, learn, Path(work))
        refused += bool(said)
        print(f"seed {seed}: {'; '.join(said) or 'clean'}", flush=True)
    print(f"{refused} of {arguments.seeds} clean conversions refused")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
