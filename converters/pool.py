"""Augmented frames that a teacher has labelled once, on disk: what distillation and fine-tuning learn from.

Augmenting a frame and running the teacher cost more than a training step of a small student. Both are done once per
pool frame; the student then sees every one of them many times, mirrored or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from edgeseg.converters.baseline import torch_baselines
from edgeseg.converters.fit import Batch
from edgeseg.converters.recipe import Pool
from edgeseg.converters.source import Source
from edgeseg.converters.training_data import AUGMENTATIONS, image_of, normalise, soft_target
from edgeseg.dataset import FrameFolder, evenly_spaced, read_pair
from edgeseg.errors import BadInput
from edgeseg.preprocess import area_of
from edgeseg.scan_area import cut
from edgeseg.types import Preprocess

_CHUNK = 64


class LabelledPool:
    """A pool on disk: images, the teacher's logits and, where the frame had a mask, soft reference targets.

    Attributes:
        has_truth: whether any frame has reference targets.
    """

    def __init__(self, folder: Path, preprocess: Preprocess) -> None:
        self.preprocess = preprocess
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._logits = np.load(folder / "logits.npy", mmap_mode="r")
        self._truth = np.load(folder / "truth.npy", mmap_mode="r")
        self._known = np.load(folder / "known.npy")
        self.has_truth = bool(self._known.any())

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int, seed: int) -> Iterator[Batch]:
        """Passes without end: normalised images, the teacher's logits, reference targets, and whether they are known.

        Images [N, C, H, W], logits and targets [N, L, h, w], all float32; known [N] bool. Equal for equal seeds.
        """
        order = np.random.default_rng(seed)
        while True:
            picks = order.permutation(len(self))
            for start in range(0, len(picks) - size + 1, size):
                chosen = np.sort(picks[start : start + size])
                yield self._batch(chosen, mirrored=bool(order.random() < 0.5))

    def sample(self, count: int, size: int) -> Iterator[Batch]:
        """Evenly spaced frames in batches of at most `size`, as in `batches`; always the same."""
        picks = np.array(evenly_spaced(len(self), count))
        for start in range(0, len(picks), size):
            yield self._batch(picks[start : start + size], mirrored=False)

    def _batch(self, picks: NDArray[np.int64], *, mirrored: bool) -> Batch:
        images = torch.from_numpy(self._images[picks]).float() / 255
        maps = [torch.from_numpy(self._logits[picks]).float(), torch.from_numpy(self._truth[picks]).float() / 255]
        if mirrored:
            images, maps = images.flip(-1), [m.flip(-1) for m in maps]
        return normalise(images, self.preprocess), *maps, torch.from_numpy(self._known[picks])


def build_pool(
    folder: Path,
    source: Source,
    frames: Sequence[FrameFolder],
    options: Pool,
    stride: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> LabelledPool:
    """Make a pool, or finish or take over the one in `folder` if it is of the same frames, teacher and options.

    Args:
        folder: where the pool lies.
        source: the teacher.
        frames: with or without masks.
        options: how many and how augmented.
        stride: of the student's logits; the teacher's are averaged down to it.
        report: called with (done, total).

    Raises:
        BadInput: no frames at all.
    """
    samples = [s for f in frames for s in f.samples]
    if not samples:
        raise BadInput("there are no frames to learn from: the folders are empty")
    settings = {
        "options": asdict(options),
        "stride": stride,
        "frames": [f.sha256() for f in frames],
        "teacher": [source.origin, asdict(source.preprocess), list(source.classes)],
        "torch": torch.__version__,
    }
    maker = _Maker(folder, source, options, stride, json.loads(json.dumps(settings)))
    maker.make(frames, report)
    return LabelledPool(folder, source.preprocess)


class _Maker:
    def __init__(self, folder: Path, source: Source, options: Pool, stride: int, settings: object) -> None:
        self.folder, self.source, self.options, self.stride, self.settings = folder, source, options, stride, settings
        runs = torch_baselines(source, None)
        self.teacher = runs.get("torch-channels-last", runs["torch"])
        self.progress = folder / "progress.json"

    def make(self, frames: Sequence[FrameFolder], report: Callable[[int, int], None]) -> None:
        total = self.options.frames
        done = self._done()
        if done == total:
            return
        classes = len(self.source.classes)
        pairs = [read_pair(s, classes) for f in frames for s in f.samples]
        preprocess = self.source.preprocess
        areas = [area_of(frame, preprocess) for frame, _ in pairs]
        images = [image_of(frame, preprocess, area) for (frame, _), area in zip(pairs, areas, strict=True)]
        height, width = preprocess.height // self.stride, preprocess.width // self.stride
        maps = 1 if classes == 2 else classes
        blank = torch.zeros(maps, preprocess.height, preprocess.width)
        targets = [
            blank if mask is None else torch.from_numpy(soft_target(cut(mask, area), preprocess, classes))
            for (_, mask), area in zip(pairs, areas, strict=True)
        ]
        arrays = {
            "images": self._array("images", (total, *images[0].shape), np.uint8),
            "logits": self._array("logits", (total, maps, height, width), np.float16),
            "truth": self._array("truth", (total, maps, height, width), np.uint8),
            "known": self._array("known", (total,), np.bool_),
        }
        augment = AUGMENTATIONS[self.options.augmentation](preprocess)
        order = np.random.default_rng(self.options.seed)
        picks = np.concatenate([order.permutation(len(pairs)) for _ in range(-(-total // len(pairs)))])[:total]
        for start in range(done, total, _CHUNK):
            # Seeded by chunk, so that a resumed pool is the one that an uninterrupted run makes.
            augment.set_random_state(seed=self.options.seed * 1_000_003 + start)
            for row in range(start, min(start + _CHUNK, total)):
                item = augment({"image": images[picks[row]], "target": targets[picks[row]]})
                self._write(arrays, row, item["image"].as_tensor(), item["target"].as_tensor())
                arrays["known"][row] = pairs[picks[row]][1] is not None
            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
            self._save(min(start + _CHUNK, total))
            report(min(start + _CHUNK, total), total)

    def _write(self, arrays: dict[str, NDArray[np.generic]], row: int, image: Tensor, target: Tensor) -> None:
        pixels = (image.clamp(0, 1) * 255).round()
        logits = torch.from_numpy(np.array(self.teacher(pixels[None].numpy())))
        arrays["images"][row] = pixels.to(torch.uint8).numpy()
        arrays["logits"][row] = to_size(logits, arrays["logits"].shape[2:])[0].half().numpy()
        arrays["truth"][row] = (F.avg_pool2d(target[None], self.stride)[0] * 255).round().to(torch.uint8).numpy()

    def _array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.npy"
        if self._done():
            return np.lib.format.open_memmap(path, "r+")
        return np.lib.format.open_memmap(path, "w+", dtype, shape)

    def _done(self) -> int:
        if not self.progress.exists():
            return 0
        state = json.loads(self.progress.read_text())
        return int(state["done"]) if state["settings"] == self.settings else 0

    def _save(self, done: int) -> None:
        part = self.progress.with_suffix(".part")
        part.write_text(json.dumps({"settings": self.settings, "done": done}))
        part.replace(self.progress)


def to_size(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Logits [N, L, h, w] at another size: averaged down where they are finer, interpolated where they are coarser."""
    height, width = size
    if logits.shape[2] >= height and logits.shape[2] % height == 0:
        return F.avg_pool2d(logits, logits.shape[2] // height)
    return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
