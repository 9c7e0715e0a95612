"""Frames and masks in memory at the network's size, and their augmentation by MONAI."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandScaleIntensityd,
)
from torch import Tensor

from edgeseg.dataset import FrameFolder, Sample, evenly_spaced, read_all
from edgeseg.errors import BadInput
from edgeseg.parity import RunLogits, reference_frame
from edgeseg.preprocess import area_of, to_input
from edgeseg.scan_area import cut
from edgeseg.types import Box, Frame, Mask, Preprocess

Batch = tuple[Tensor, Tensor]


class TrainingData:
    """The training frames at the network's size, augmented anew every epoch.

    Args:
        samples: frames with masks.
        preprocess: the network's size and normalisation.
        classes: number of classes with the background.
        stride: of the network's logits; targets are averaged down to it.
        augmentation: "standard" or "strong".
    """

    def __init__(
        self, samples: FrameFolder, preprocess: Preprocess, classes: int, stride: int, augmentation: str = "standard"
    ) -> None:
        self.preprocess = preprocess
        self.stride = stride
        pairs = read_all(samples.samples, classes)
        areas = [area_of(f, preprocess) for f, _ in pairs]
        self.images = torch.stack([image_of(f, preprocess, a) for (f, _), a in zip(pairs, areas, strict=True)])
        self.targets = torch.stack(
            [
                torch.from_numpy(soft_target(cut(m, a), preprocess, classes))
                for (_, m), a in zip(pairs, areas, strict=True)
            ]
        )
        self.augment = AUGMENTATIONS[augmentation](preprocess)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, seed: int) -> Iterator[Batch]:
        """One epoch of normalised images [N, C, H, W] and targets [N, L, h, w], float32; equal for equal seeds."""
        self.augment.set_random_state(seed=seed)
        order = np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(order) - size + 1, size):
            items = [
                self.augment({"image": self.images[i], "target": self.targets[i]}) for i in order[start : start + size]
            ]
            images = torch.stack([item["image"].as_tensor() for item in items]).clamp_(0, 1)
            targets = torch.stack([item["target"].as_tensor() for item in items])
            if self.stride > 1:
                targets = torch.nn.functional.avg_pool2d(targets, self.stride)
            yield normalise(images, self.preprocess), targets

    def calibration(self, count: int = 32) -> Tensor:
        """Evenly spaced, unaugmented, normalised frames [N, C, H, W] float32."""
        picks = evenly_spaced(len(self), count)
        return normalise(self.images[picks], self.preprocess)


class ValidationData:
    """Frames at the network's size with their masks at the frames' own, and where in the frame the network looks.

    Args:
        samples: the frames.
        preprocess: the network's size and normalisation.
        classes: number of classes with the background.
        source: gives the masks of frames that have none; None where all have one.
    """

    def __init__(
        self, samples: FrameFolder, preprocess: Preprocess, classes: int, source: RunLogits | None = None
    ) -> None:
        self.preprocess = preprocess
        if source is None:
            pairs = read_all(samples.samples, classes)
        else:
            frames = [s.read_frame() for s in samples.samples]
            pairs = [(f, reference_frame(f, None, preprocess, source).mask) for f in frames]
        self.items: list[tuple[Tensor, Mask, Box | None]] = [self._item(frame, mask) for frame, mask in pairs]

    def _item(self, frame: Frame, mask: Mask) -> tuple[Tensor, Mask, Box | None]:
        area = area_of(frame, self.preprocess)
        return normalise(image_of(frame, self.preprocess, area)[None], self.preprocess), mask, area


def _standard(preprocess: Preprocess) -> Compose:
    return Compose(
        [
            _affine(preprocess, rotate=0.44, translate=0.08, scale=0.22),
            RandFlipd(("image", "target"), prob=0.5, spatial_axis=1),
            RandFlipd(("image", "target"), prob=0.3, spatial_axis=0),
            RandAdjustContrastd("image", prob=0.8, gamma=(0.7, 1.4)),
            RandScaleIntensityd("image", factors=0.2, prob=0.8),
            RandGaussianNoised("image", prob=0.4, std=0.05),
        ]
    )


def _strong(preprocess: Preprocess) -> Compose:
    return Compose(
        [
            _affine(preprocess, rotate=0.8, translate=0.1, scale=0.3),
            RandFlipd(("image", "target"), prob=0.5, spatial_axis=1),
            RandFlipd(("image", "target"), prob=0.5, spatial_axis=0),
            RandAdjustContrastd("image", prob=0.8, gamma=(0.6, 1.6)),
            RandScaleIntensityd("image", factors=0.3, prob=0.8),
            RandHistogramShiftd("image", num_control_points=6, prob=0.3),
            RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.4, 1.2), sigma_y=(0.4, 1.2)),
            RandGaussianNoised("image", prob=0.4, std=0.05),
        ]
    )


AUGMENTATIONS: dict[str, Callable[[Preprocess], Compose]] = {"standard": _standard, "strong": _strong}


def _affine(preprocess: Preprocess, *, rotate: float, translate: float, scale: float) -> RandAffined:
    """Rotation up to `rotate` radians, shift and scale up to these shares, of image and target alike."""
    return RandAffined(
        ("image", "target"),
        prob=1.0,
        rotate_range=rotate,
        translate_range=(translate * preprocess.height, translate * preprocess.width),
        scale_range=scale,
        padding_mode="zeros",
        cache_grid=True,
        spatial_size=(preprocess.height, preprocess.width),
    )


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """(x - mean) / std for images [N, C, H, W] scaled to [0, 1]."""
    mean = torch.tensor(preprocess.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std).view(1, -1, 1, 1)
    return (images - mean) / std


def image_of(frame: Frame, preprocess: Preprocess, area: Box | None) -> Tensor:
    """What the network sees of a frame, scaled to [0, 1]: [C, h, w] float32."""
    return torch.from_numpy(to_input(frame, preprocess, area=area)[0] / 255)


def soft_target(mask: Mask, preprocess: Preprocess, classes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Share of each pixel that a class covers at the network's size: [1, h, w] for two classes, else [N, h, w].

    The mask is of what the network sees: cut to the scan area, where there is one.
    """
    size = (preprocess.width, preprocess.height)
    wanted = (1,) if classes == 2 else range(classes)
    planes = [cv2.resize((mask == c).astype(np.float32), size, interpolation=cv2.INTER_AREA) for c in wanted]
    return np.stack(planes).astype(np.float32)


def split_for_training(folder: FrameFolder) -> tuple[FrameFolder, FrameFolder]:
    """The train and val splits; without an index, every eighth exam becomes validation.

    Raises:
        BadInput: where the index has one of the two splits only, or there are too few exams to hold any out.
    """
    if folder.splits:
        return folder.select("train"), folder.select("val")
    exams = sorted({s.exam for s in folder.samples})
    if len(exams) < 2:
        raise BadInput(f"{folder.path} has {len(exams)} exam, expected at least 2: one is held out for validation")
    held = set(exams[:: min(8, len(exams))])

    def pick(keep: bool, name: str) -> FrameFolder:
        chosen: tuple[Sample, ...] = tuple(s for s in folder.samples if (s.exam in held) is keep)
        return FrameFolder(folder.path, chosen, name)

    return pick(False, "train"), pick(True, "val")
