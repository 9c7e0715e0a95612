"""What ships inside the package: small enough, complete, and consistent with itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg import metrics, samples
from edgeseg.converters.checkpoint import file_sha256, load_checkpoint
from edgeseg.converters.macs import macs
from edgeseg.converters.recipe import read_recipe
from edgeseg.converters.source import load_source
from edgeseg.dataset import read_folder
from edgeseg.preprocess import to_input, to_mask

CARD = (samples.ROOT / "MODEL_CARD.md").read_text()


def test_the_samples_stay_under_ten_megabytes() -> None:
    files = [p for p in samples.ROOT.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) <= 10_000_000


def test_frames_come_in_two_splits_that_share_no_exam() -> None:
    folder = read_folder(samples.FRAMES, need_masks=True)
    train, test = folder.select("train"), folder.select("test")
    assert (len(train), len(test)) == (6, 12)
    assert not {s.exam for s in train.samples} & {s.exam for s in test.samples}
    assert all(s.pixel_size_mm and s.hc_mm_reference for s in folder.samples)


def test_the_checkpoint_tells_how_it_was_made() -> None:
    model, info = load_checkpoint(samples.CHECKPOINT)
    assert info.architecture["name"] == "mobilenetv2-unet"
    assert info.classes == ("background", "head")
    assert not model.training
    record = info.training
    assert len(record["history"]) == record["options"]["epochs"]
    assert re.fullmatch("[0-9a-f]{64}", record["data"]["sha256"]["train"])
    assert record["encoder_weights"]["sha256"]
    assert max(e["val_dice"] for e in record["history"]) == pytest.approx(record["val_dice"], abs=1e-5)


@pytest.mark.parametrize("checkpoint", [samples.CHECKPOINT, samples.STUDENT])
def test_the_checkpoint_segments_the_held_out_frames(checkpoint: Path) -> None:
    source = load_source(str(checkpoint))
    scores = []
    for sample in read_folder(samples.FRAMES).select("test").samples:
        frame = sample.read_frame()
        mask = to_mask(source.run(to_input(frame, source.preprocess)), frame.shape)
        scores.append(metrics.dice(mask, sample.read_mask()))
    assert np.mean(scores) > 0.96
    assert min(scores) > 0.90


def test_the_student_was_taught_by_the_checkpoint_with_the_recipe_beside_it() -> None:
    model, info = load_checkpoint(samples.STUDENT)
    teacher = load_checkpoint(samples.CHECKPOINT)[0]
    example = torch.zeros(1, 1, 256, 256)
    assert macs(model, example) < 0.06 * macs(teacher, example)
    record = info.training
    assert record["teacher"]["sha256"] == file_sha256(samples.CHECKPOINT)
    recipe = read_recipe(samples.STUDENT_RECIPE)
    assert recipe.distill
    assert record["distill"]["lesson"]["samples"] == recipe.distill.samples
    assert tuple(record["distill"]["options"]["widths"]) in recipe.distill.search_widths
    assert record["pool"]["frames"] == recipe.pool.frames


def test_the_model_card_is_about_these_checkpoints() -> None:
    assert file_sha256(samples.CHECKPOINT) in CARD
    assert file_sha256(samples.STUDENT) in CARD
    for word in ("not a medical device", "CC BY 4.0", "10.1371/journal.pone.0200412", "random start", "95 %"):
        assert word in CARD
