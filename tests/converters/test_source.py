"""Sources: each form a trained model may come in, and what is said of one that cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeseg.converters.checkpoint import load_checkpoint, read_info, save_checkpoint
from edgeseg.converters.models.build import build
from edgeseg.converters.source import SourceOptions, load_source
from edgeseg.errors import BadInput, ConversionError, UnsupportedModel
from edgeseg.types import Preprocess

SIZE = SourceOptions(size=(64, 96))
SMALL = {"width": 0.35, "decoder": (16, 8, 8, 8)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    preprocess = Preprocess(64, 96, 1, (0.4,), (0.2,))
    save_checkpoint(path, build("mobilenetv2-unet", **SMALL), preprocess, ("background", "head"), {"val_dice": 0.5})
    return path


def test_a_checkpoint_says_everything_of_itself(checkpoint: Path) -> None:
    source = load_source(str(checkpoint))
    assert source.preprocess == Preprocess(64, 96, 1, (0.4,), (0.2,))
    assert source.classes == ("background", "head")
    assert source.training == {"val_dice": 0.5}
    assert source.origin["architecture"]["options"]["width"] == 0.35
    model, _ = load_checkpoint(checkpoint)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, 64, 96)).astype(np.float32)
    with torch.inference_mode():
        want = model((torch.from_numpy(pixels) / 255 - 0.4) / 0.2).numpy()
    np.testing.assert_allclose(source.run(pixels), want, atol=1e-4)


def test_a_checkpoint_can_run_at_another_size(checkpoint: Path) -> None:
    assert load_source(str(checkpoint), SourceOptions(size=(32, 64))).preprocess.height == 32
    with pytest.raises(UnsupportedModel, match=r"fails on an input \[1, 1, 50, 50\]"):
        load_source(str(checkpoint), SourceOptions(size=(50, 50)))


@pytest.mark.parametrize("spoil", ["empty", "half", "noise"])
def test_a_damaged_checkpoint_is_one_typed_error(checkpoint: Path, spoil: str) -> None:
    data = checkpoint.read_bytes()
    noise = np.random.default_rng(0).bytes(500)
    checkpoint.write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": noise}[spoil])
    with pytest.raises(ConversionError, match=r"small.safetensors is not a valid"):
        load_source(str(checkpoint))


def test_weights_without_metadata_ask_for_their_factory(checkpoint: Path) -> None:
    save_file(load_file(checkpoint), checkpoint)
    with pytest.raises(ConversionError, match=r"no edgeseg metadata: give the factory .* --weights small.safetensors"):
        load_source(str(checkpoint))


@pytest.mark.parametrize("metadata", ["{", "[]", '{"architecture": 3}'])
def test_damaged_metadata_is_one_typed_error(checkpoint: Path, metadata: str) -> None:
    save_file(load_file(checkpoint), checkpoint, {"edgeseg": metadata})
    with pytest.raises(ConversionError, match="damaged edgeseg metadata"):
        load_source(str(checkpoint))


def test_weights_of_another_architecture_do_not_fit(checkpoint: Path) -> None:
    import msgspec

    info = read_info(checkpoint)
    options = info.architecture["options"] | {"width": 0.5}
    other = replace(info, architecture={"name": "mobilenetv2-unet", "options": options})
    save_file(load_file(checkpoint), checkpoint, {"edgeseg": msgspec.json.encode(other).decode()})
    with pytest.raises(ConversionError, match="its weights do not fit its architecture"):
        load_source(str(checkpoint))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_factory_outside_the_package_with_its_weights(suffix: str, user: Path, tmp_path: Path) -> None:
    state = load_file(user / "tiny.safetensors")
    weights = tmp_path / f"tiny{suffix}"
    torch.save(state, weights) if suffix == ".pth" else save_file(state, weights)
    options = SourceOptions(weights=weights, size=(64, 96), mean=(0.5,), std=(0.25,), classes=("background", "head"))
    source = load_source("usermodels:tiny", options)
    assert source.preprocess == Preprocess(64, 96, 1, (0.5,), (0.25,))
    assert source.origin["file"] == weights.name
    assert source.run(source.example.numpy()).shape == (1, 1, 16, 24)
    assert torch.equal(source.network.module.head.weight, state["head.weight"])


def test_a_module_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "justhere.py").write_text("from torch import nn\nnet = nn.Conv2d(3, 1, 1)\n")
    monkeypatch.chdir(tmp_path)
    source = load_source("justhere:net")
    assert (source.preprocess.channels, source.preprocess.height) == (3, 256)


@pytest.mark.parametrize(("factory", "classes"), [("colour", 2), ("four_classes", 4)])
def test_channels_and_class_names_come_from_the_model(factory: str, classes: int, user: Path) -> None:
    source = load_source(f"usermodels:{factory}", SIZE)
    assert len(source.classes) == classes
    assert source.classes[0] == "background"
    assert source.preprocess.channels == (3 if factory == "colour" else 1)


@pytest.mark.parametrize("factory", ["dictionary", "pair"])
def test_the_main_output_of_a_dict_or_tuple_is_taken(factory: str, user: Path) -> None:
    source = load_source(f"usermodels:{factory}", replace(SIZE, weights=user / "tiny.safetensors"))
    plain = load_source("usermodels:tiny", replace(SIZE, weights=user / "tiny.safetensors"))
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, 64, 96)).astype(np.float32)
    np.testing.assert_array_equal(source.run(pixels), plain.run(pixels))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("usermodels:flat", UnsupportedModel, r"expected float logits \[1, L, h, w\]"),
        ("usermodels:not_a_number", UnsupportedModel, "NaN or infinity .* are its weights loaded"),
        ("usermodels:word", ConversionError, "returned a str, expected a torch.nn.Module"),
        ("usermodels:broken", ConversionError, "cannot be built: RuntimeError: the factory itself is broken"),
        ("usermodels:nothing", ConversionError, "cannot be built: AttributeError"),
        ("nosuchmodule:net", ConversionError, "cannot be built: ModuleNotFoundError"),
        ("model.h5", ConversionError, "is no source, expected a .safetensors, .pt2 or .onnx file, or package"),
        ("none.onnx", ConversionError, "none.onnx does not exist"),
        ("none.safetensors", ConversionError, "none.safetensors does not exist"),
    ],
)
def test_what_is_no_source_is_said_in_one_line(
    spec: str, error: type[ConversionError], message: str, user: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        load_source(spec, SIZE)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_name_the_factory(user: Path) -> None:
    with pytest.raises(ConversionError, match=r"tiny.safetensors does not fit usermodels:four_classes"):
        load_source("usermodels:four_classes", replace(SIZE, weights=user / "tiny.safetensors"))


def test_classes_must_match_the_logits(user: Path) -> None:
    with pytest.raises(BadInput, match="returns 4 logits for 2 classes"):
        load_source("usermodels:four_classes", replace(SIZE, classes=("background", "head")))
    with pytest.raises(BadInput, match="returns 1 logits for 3 classes"):
        load_source("usermodels:tiny", replace(SIZE, classes=("background", "head", "neck")))


def test_normalisation_must_match_the_channels(user: Path) -> None:
    with pytest.raises(BadInput, match="must have 3 figures each"):
        load_source("usermodels:colour", replace(SIZE, mean=(0.5,)))
    with pytest.raises(BadInput, match="std above 0"):
        load_source("usermodels:tiny", replace(SIZE, std=(0.0,)))
    with pytest.raises(UnsupportedModel, match="fails on an input"):
        load_source("usermodels:tiny", replace(SIZE, channels=3))
