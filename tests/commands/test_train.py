"""`edgeseg train`: it learns, keeps the best, survives a kill, and its checkpoint says how it came about."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from safetensors.numpy import load_file

Invoke = Callable[..., Result]

SMALL = ("--width", "0.35", "--size", "64x96", "--batch-size", "4", "--threads", "1")


def history(checkpoint: Path) -> list[dict[str, float]]:
    from edgeseg.converters.checkpoint import read_info

    found: list[dict[str, float]] = read_info(checkpoint).training["history"]
    return found


@pytest.mark.slow
def test_training_learns_and_the_checkpoint_is_complete(invoke: Invoke, frames: Path, tmp_path: Path) -> None:
    from edgeseg.converters.checkpoint import file_sha256, load_checkpoint
    from edgeseg.converters.models.build import build
    from edgeseg.dataset import read_folder

    weights = tmp_path / "imagenet.safetensors"
    from safetensors.torch import save_file

    save_file(build("mobilenetv2-unet", in_channels=3, width=0.35).encoder.state_dict(), weights)
    output = tmp_path / "head.safetensors"
    chosen = ("--epochs", 16, "--encoder-weights", weights, "--classes", "background,head")
    result = invoke("train", frames, "-o", output, *chosen, *SMALL)
    assert result.exit_code == 0, result.output
    lines = re.findall(r"epoch +(\d+)/16  loss (\S+)  val Dice (\S+)( \*)?", result.stdout)
    assert [int(number) for number, *_ in lines] == list(range(1, 17))
    dices = [float(dice) for _, _, dice, _ in lines]
    assert max(dices) > 80
    _, info = load_checkpoint(output)
    record = info.training
    assert record["best_epoch"] == int([number for number, _, _, best in lines if best][-1])
    assert 100 * record["val_dice"] == pytest.approx(max(dices), abs=0.01)
    assert info.architecture == {"name": "mobilenetv2-unet", "options": info.architecture["options"]}
    assert info.architecture["options"]["width"] == 0.35
    assert info.classes == ("background", "head")
    assert (info.preprocess.height, info.preprocess.width) == (64, 96)
    assert info.preprocess.mean == (0.449,)
    folder = read_folder(frames)
    assert record["data"]["sha256"] == {s: folder.select(s).sha256() for s in ("train", "val")}
    assert record["data"]["frames"] == {"train": 24, "val": 8}
    assert record["encoder_weights"] == {"file": weights.name, "sha256": file_sha256(weights)}
    assert record["options"]["epochs"] == 16
    assert {"torch", "monai", "edgeseg"} <= record["tools"].keys()
    assert str(tmp_path) not in output.read_bytes()[:20000].decode(errors="replace")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head.safetensors", "imagenet.safetensors"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(invoke: Invoke, frames: Path, tmp_path: Path) -> None:
    args = [str(a) for a in ("train", frames, "--epochs", 5, *SMALL, "-o")]
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    code = "from edgeseg.cli import main; main()"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, *args, str(resumed)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch   2/5"):
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    assert not resumed.exists()
    assert (tmp_path / ".resumed.safetensors.state.pt").exists()

    refused = invoke(*args[:-1], "--seed", 1, "-o", resumed)
    assert refused.exit_code == 1
    assert re.fullmatch(r"error: .*state of a run with other options, data or versions: remove it .*\n", refused.stderr)
    other_size = [a if a != "64x96" else "64x64" for a in args]
    assert "state of a run with other options" in invoke(*other_size, resumed).stderr

    second = invoke(*args, resumed)
    assert second.exit_code == 0, second.output
    assert "epoch   1/5" not in second.stdout
    assert invoke(*args, whole).exit_code == 0
    assert history(resumed) == history(whole)
    weights, again = load_file(whole), load_file(resumed)
    assert all((weights[k] == again[k]).all() for k in weights)
    assert not (tmp_path / ".resumed.safetensors.state.pt").exists()


def test_a_damaged_state_is_named(invoke: Invoke, frames: Path, tmp_path: Path) -> None:
    (tmp_path / ".head.safetensors.state.pt").write_bytes(b"half a state")
    result = invoke("train", frames, "-o", tmp_path / "head.safetensors", "--epochs", 1, *SMALL)
    assert result.exit_code == 1
    assert "is not a readable training state: remove it" in result.stderr


def strip_masks(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        path.unlink()


def one_mask_missing(folder: Path) -> None:
    (folder / "masks" / "003.png").unlink()


def no_val_split(folder: Path) -> None:
    text = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(text.replace(",val,", ",train,").replace(",test,", ",train,"))


def empty(folder: Path) -> None:
    for path in [*(folder / "images").iterdir(), *(folder / "masks").iterdir()]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (strip_masks, "has no mask of the same name (10 such frames)"),
        (one_mask_missing, "003.png has no mask of the same name (1 such frames)"),
        (no_val_split, "has no split 'val' (splits: train)"),
        (empty, "has no frames, expected PNG files"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused(
    spoil: Callable[[Path], None], message: str, invoke: Invoke, make_frames: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_frames(tmp_path / "data", 10)
    spoil(folder)
    result = invoke("train", folder, "-o", tmp_path / "x.safetensors", *SMALL)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_too_few_frames_for_a_batch(invoke: Invoke, make_frames: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "data", 4)
    result = invoke("train", folder, "-o", tmp_path / "x.safetensors", *SMALL)
    assert result.exit_code == 1
    assert "has 3 training frames, expected at least one batch of 4" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("-o", "x.pth"), 1, "expected a name that ends in .safetensors"),
        (("-o", "x.safetensors", "--size", "100x100"), 1, "size is 100x100, expected multiples of 32"),
        (("-o", "x.safetensors", "--size", "big"), 1, "size is 'big', expected HEIGHTxWIDTH"),
        (("-o", "x.safetensors", "--classes", "head"), 1, "expected at least two names"),
        (("-o", "x.safetensors", "--arch", "resnet"), 2, "Invalid value for '--arch'"),
        (("-o", "x.safetensors", "--width", "0"), 1, "width is 0.0, expected 0.1 to 4"),
        (("-o", "x.safetensors", "--encoder-weights", "none.npz"), 1, "none.npz does not exist"),
        ((), 2, "Missing option '-o'"),
    ],
)
def test_options_that_cannot_be(
    options: tuple[str, ...], code: int, message: str, invoke: Invoke, frames: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("train", frames, *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unwritable_output_fails_before_the_first_epoch(invoke: Invoke, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("train", frames, "-o", tmp_path / "file" / "x.safetensors", *SMALL, "--epochs", 1)
    assert result.exit_code == 1
    assert "epoch" not in result.stdout
    assert result.stderr.startswith("error: ")


def test_masks_with_more_classes_than_asked_for_are_refused(
    invoke: Invoke, make_frames: Callable[..., Path], tmp_path: Path
) -> None:
    import cv2

    folder = make_frames(tmp_path / "data", 12)
    with (folder / "index.csv").open() as stream:
        first = next(csv.DictReader(stream))["file"]
    mask = cv2.imread(str(folder / "masks" / first), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folder / "masks" / first), mask // 255 * 7)
    result = invoke("train", folder, "-o", tmp_path / "x.safetensors", *SMALL, "--classes", "background,a,b")
    assert result.exit_code == 1
    assert f"{first} has class index 7, expected at most 2" in result.stderr
