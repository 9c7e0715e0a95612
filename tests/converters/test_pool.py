"""The pool that a source labels: the same after a kill as without one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeseg.converters.pool import LabelledPool, build_pool, to_size
from edgeseg.converters.recipe import Pool
from edgeseg.converters.source import Source, SourceOptions, load_source
from edgeseg.dataset import FrameFolder, read_folder
from edgeseg.errors import BadInput

OPTIONS = Pool(frames=150, augmentation="standard")


@pytest.fixture(scope="module")
def source(user: Path) -> Source:
    return load_source("usermodels:tiny", SourceOptions(weights=user / "tiny.safetensors", size=(64, 96)))


@pytest.fixture(scope="module")
def learn(frames: Path) -> FrameFolder:
    return read_folder(frames).select("train")


@pytest.fixture(scope="module")
def pool(source: Source, learn: FrameFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    build_pool(folder, source, [learn], OPTIONS, 4)
    return folder


def content(folder: Path) -> dict[str, Any]:
    return {p.name: np.load(p) for p in sorted(folder.glob("*.npy"))}


def test_the_source_s_word_is_what_the_source_says_of_that_image(source: Source, pool: Path) -> None:
    arrays = content(pool)
    for row in (0, 77, 149):
        said = source.run(arrays["images.npy"][row][None].astype(np.float32))
        np.testing.assert_allclose(arrays["logits.npy"][row], said[0], rtol=2e-3, atol=2e-3)
    assert arrays["known.npy"].all()
    assert 0.05 < arrays["truth.npy"].mean() / 255 < 0.5


def test_a_pool_killed_half_way_ends_as_if_nothing_had_been(
    source: Source, learn: FrameFolder, pool: Path, tmp_path: Path
) -> None:
    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pool(tmp_path, source, [learn], OPTIONS, 4, killed)
    seen: list[int] = []
    build_pool(tmp_path, source, [learn], OPTIONS, 4, lambda done, total: seen.append(done))
    assert seen == [128, 150]  # the first 64 were not made again
    for name, array in content(pool).items():
        np.testing.assert_array_equal(array, content(tmp_path)[name])


def test_a_finished_pool_is_taken_as_it_is_and_another_one_made_anew(
    source: Source, learn: FrameFolder, pool: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pool, tmp_path / "pool"))
    seen: list[int] = []
    build_pool(folder, source, [learn], OPTIONS, 4, lambda done, total: seen.append(done))
    assert seen == []
    again = build_pool(folder, source, [learn], Pool(frames=70, augmentation="standard", seed=1), 4)
    assert len(again) == 70


def test_batches_are_normalised_mirrored_or_not_and_the_same_for_a_seed(source: Source, pool: Path) -> None:
    opened = LabelledPool(pool, source.preprocess)

    def first(seed: int, count: int = 40) -> list[torch.Tensor]:
        stream = opened.batches(16, seed)
        return [next(stream)[0] for _ in range(count)]

    one = first(3)
    assert all(torch.equal(a, b) for a, b in zip(one, first(3), strict=True))
    assert not torch.equal(one[0], first(4)[0])
    images = torch.from_numpy(content(pool)["images.npy"]).float() / 255
    rows = [any(torch.equal(image, known) for known in images) for image in torch.cat(one[:9])]
    mirrored = [any(torch.equal(image.flip(-1), known) for known in images) for image in torch.cat(one[:9])]
    assert all(a or b for a, b in zip(rows, mirrored, strict=True))
    assert any(rows)
    assert any(mirrored)


def test_frames_without_masks_are_known_to_have_none(
    source: Source, learn: FrameFolder, make_frames: Callable[..., Path], tmp_path: Path
) -> None:
    bare = make_frames(tmp_path / "bare", count=8)
    shutil.rmtree(bare / "masks")
    opened = build_pool(tmp_path / "pool", source, [learn, read_folder(bare)], Pool(frames=64), 4)
    known = np.load(tmp_path / "pool" / "known.npy")
    assert opened.has_truth
    assert 0 < known.sum() < 64
    assert not np.load(tmp_path / "pool" / "truth.npy")[~known].any()


def test_no_frames_is_an_error(source: Source, learn: FrameFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no frames to learn from"):
        build_pool(tmp_path, source, [FrameFolder(learn.path, ())], OPTIONS, 4)


def test_logits_are_brought_to_another_size() -> None:
    logits = torch.arange(16.0).view(1, 1, 4, 4)
    assert to_size(logits, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert to_size(logits, (8, 8)).shape == (1, 1, 8, 8)
