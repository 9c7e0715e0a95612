"""The student of the samples with three channels in and two logits out: what model_api's SegmentationModel can run.

    cd tools/peers
    edgeseg convert colour_student:colour --mean 0.449,0.449,0.449 --std 0.226,0.226,0.226 \
        --classes background,head --calibration FRAMES -o ../../build/colour.edgeseg

Gray is the mean of the channels, and the two logits are the student's, halved, with either sign: the same masks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg import samples
from edgeseg.converters.checkpoint import load_checkpoint


class ColourStudent(nn.Module):
    """[N, 3, H, W] to [N, 2, h, w]."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.gray = nn.Conv2d(3, 1, 1, bias=False)
        self.student = student
        self.classes = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.constant_(self.gray.weight, 1 / 3)
        self.classes.weight.data = torch.tensor([-0.5, 0.5]).reshape(2, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the background and of the head."""
        logits: Tensor = self.classes(self.student(self.gray(x)))
        return logits


def colour() -> ColourStudent:
    """Built and loaded."""
    return ColourStudent(load_checkpoint(samples.STUDENT)[0])
