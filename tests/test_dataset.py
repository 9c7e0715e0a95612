"""Folders of frames: what is read from them, and what is said where they do not fit together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.dataset import Sample, read_all, read_folder
from edgeseg.errors import BadInput

MakeFrames = Callable[..., Path]


@pytest.fixture
def folder(make_frames: MakeFrames, tmp_path: Path) -> Path:
    return make_frames(tmp_path / "data", 10)


def test_samples_come_in_order_with_all_that_is_known(folder: Path) -> None:
    frames = read_folder(folder, need_masks=True)
    assert [s.name for s in frames.samples] == [f"{i:03d}.png" for i in range(10)]
    assert frames.splits == {"train", "val", "test"}
    assert [len(frames.select(s)) for s in ("train", "val", "test")] == [6, 2, 2]
    sample = frames.samples[3]
    assert (sample.exam, sample.pixel_size_mm) == ("exam1", 0.5)
    assert sample.hc_mm_reference is not None
    assert sample.read_frame().shape == sample.read_mask().shape == (96, 128)
    assert set(np.unique(sample.read_mask())) == {0, 1}


def test_without_an_index_every_frame_is_its_own_exam(folder: Path) -> None:
    (folder / "index.csv").unlink()
    frames = read_folder(folder)
    assert not frames.splits
    assert frames.samples[3].exam == "003.png"
    assert frames.prefer("train", "val") is frames


def test_a_split_is_chosen_by_preference(folder: Path) -> None:
    frames = read_folder(folder)
    assert frames.prefer("missing", "val").split == "val"
    assert frames.prefer("missing") is frames
    with pytest.raises(BadInput, match=r"has no split 'future' \(splits: test, train, val\)"):
        frames.select("future")


def test_the_column_suggested_split_serves_too(folder: Path) -> None:
    index = folder / "index.csv"
    index.write_text(index.read_text().replace("file,split", "file,suggested_split"))
    assert read_folder(folder).splits == {"train", "val", "test"}


def test_frames_are_spread_evenly(folder: Path) -> None:
    frames = read_folder(folder)
    assert [s.name for s in frames.spread(3).samples] == ["000.png", "004.png", "009.png"]
    assert frames.spread(99) is frames


def test_the_hash_follows_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    before = read_folder(folder).sha256()
    assert read_folder(moved).sha256() == before
    mask = moved / "masks" / "004.png"
    image = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    image[0, 0] ^= 255
    cv2.imwrite(str(mask), image)
    assert read_folder(moved).sha256() != before


@pytest.mark.parametrize(
    ("values", "classes", "want"),
    [([0, 1], 2, [0, 1]), ([0, 255], 2, [0, 1]), ([0, 0], 2, [0]), ([0, 1, 2], 3, [0, 1, 2])],
)
def test_masks_hold_class_indices_or_0_and_255(folder: Path, values: list[int], classes: int, want: list[int]) -> None:
    cv2.imwrite(str(folder / "masks" / "000.png"), np.resize(np.uint8(values), (96, 128)))
    assert np.unique(read_folder(folder).samples[0].read_mask(classes)).tolist() == want


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([0, 1, 2], 2, "class index 2, expected at most 1"),
        ([0, 128, 255], 2, "values between 0 and 255"),
        ([0, 255], 3, "class index 255, expected at most 2"),
    ],
)
def test_masks_with_other_values_are_refused(folder: Path, values: list[int], classes: int, message: str) -> None:
    cv2.imwrite(str(folder / "masks" / "000.png"), np.resize(np.uint8(values), (96, 128)))
    with pytest.raises(BadInput, match=f"000.png has {message}"):
        read_folder(folder).samples[0].read_mask(classes)


def test_a_coloured_mask_is_refused(folder: Path) -> None:
    cv2.imwrite(str(folder / "masks" / "000.png"), np.full((96, 128, 3), (0, 0, 255), np.uint8))
    with pytest.raises(BadInput, match="expected a gray or 1-bit PNG"):
        read_folder(folder).samples[0].read_mask()


def test_a_mask_of_another_size_is_refused(folder: Path) -> None:
    cv2.imwrite(str(folder / "masks" / "001.png"), np.zeros((96, 127), np.uint8))
    with pytest.raises(BadInput, match=r"001.png has size \(96, 127\), its image \(96, 128\)"):
        read_all(read_folder(folder).samples, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\n000.png,train\n", r"has no column 'file' \(columns: name, split\)"),
        ("", r"has no column 'file' \(columns: none\)"),
        ("file,pixel_size_mm\n000.png,wide\n", "pixel_size_mm of 000.png is 'wide', expected a number above 0"),
        ("file\n000.png\n777.png\n", r"names 777.png, which is not in .*images \(1 such rows\)"),
        ("file,pixel_size_mm\n000.png,nan\n", "pixel_size_mm of 000.png is 'nan', expected a number above 0"),
        ("file,pixel_size_mm\n000.png,-1\n", "pixel_size_mm of 000.png is '-1', expected a number above 0"),
    ],
)
def test_an_index_that_cannot_be_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "index.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_folder(folder)


def test_an_index_that_is_no_text_is_one_typed_error(folder: Path) -> None:
    (folder / "index.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(BadInput, match=r"index.csv"):
        read_folder(folder)


def test_an_index_from_a_spreadsheet_with_a_byte_order_mark_is_read(folder: Path) -> None:
    index = folder / "index.csv"
    index.write_text(index.read_text().replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    assert read_folder(folder).splits == {"train", "val", "test"}


def test_missing_folders_and_masks_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no frames, expected PNG files in"):
        read_folder(tmp_path / "nowhere")
    shutil.rmtree(folder / "masks")
    assert not read_folder(folder).has_masks
    with pytest.raises(BadInput, match=r"000.png has no mask of the same name \(10 such frames\)"):
        read_folder(folder, need_masks=True)
    with pytest.raises(BadInput, match=r"has no mask, expected masks/000.png"):
        read_folder(folder).samples[0].read_mask()


def test_a_head_that_is_not_found_errs_by_its_whole_circumference() -> None:
    sample = Sample("a.png", Path("a.png"), None, pixel_size_mm=0.5, hc_mm_reference=100.0)
    assert sample.circumference_error_mm(np.zeros((50, 50), np.uint8), 0.0) == 100.0
    assert replace(sample, pixel_size_mm=None).circumference_error_mm(np.zeros((50, 50), np.uint8), 0.0) is None
