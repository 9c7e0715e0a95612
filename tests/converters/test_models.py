"""The reference segmenters: shapes, options, and the key names that pretrained weights come with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.converters.models.build import architecture, build
from edgeseg.converters.models.encoder_weights import convolutions, load_encoder_weights
from edgeseg.converters.models.unet import EDGE, ENCODERS
from edgeseg.errors import BadInput, ConversionError

WEIGHTS = Path(__file__).parents[2].parent / "shared" / "data" / "weights"
SMALL = {"width": 0.35, "decoder": (16, 8, 8, 8)}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("channels", "classes", "logits"), [(1, 2, 1), (3, 2, 1), (1, 5, 5), (3, 5, 5)])
def test_channels_classes_and_sizes_that_are_not_square(name: str, channels: int, classes: int, logits: int) -> None:
    model = build(name, in_channels=channels, classes=classes, **SMALL).eval()
    for height, width in ((64, 96), (96, 32)):
        assert model(torch.zeros(2, channels, height, width)).shape == (2, logits, height // 2, width // 2)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_edge_variant_gives_logits_at_stride_four_without_concatenation(name: str) -> None:
    model = build(name, width=0.35, **EDGE).eval()
    assert model(torch.zeros(1, 1, 64, 96)).shape == (1, 1, 16, 24)
    graph = torch.fx.symbolic_trace(model).graph
    assert not [n for n in graph.nodes if n.target in (torch.cat, torch.concat)]


def test_full_resolution_and_a_fifth_stage_both_reach_the_inputs_size() -> None:
    x = torch.rand(1, 1, 64, 96)
    upsampled = build("mobilenetv2-unet", full_resolution=True, **SMALL).eval()
    assert upsampled(x).shape == x.shape
    assert build("mobilenetv2-unet", width=0.35, decoder=(16, 8, 8, 8, 8)).eval()(x).shape == x.shape


def test_width_scales_the_encoder_in_steps_of_eight() -> None:
    channels = build("mobilenetv2-unet", width=0.5).encoder.channels
    assert channels == (8, 16, 16, 48, 160)
    assert build("mobilenetv2-unet").encoder.channels == (16, 24, 32, 96, 320)
    assert build("efficientnet-lite0-unet").encoder.channels == (16, 24, 40, 112, 320)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 2}, "in_channels is 2, expected 1 or 3"),
        ({"classes": 1}, "classes is 1"),
        ({"width": 0.0}, "width is 0.0"),
        ({"decoder": ()}, "expected 1 to 5"),
        ({"join": "stack"}, "join is 'stack'"),
        ({"upsample": "cubic"}, "upsample is 'cubic'"),
        ({"depth": 3}, "unknown option 'depth'"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        build("mobilenetv2-unet", **options)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown architecture 'resnet', expected one of edge-unet, efficient"):
        build("resnet")


def test_architecture_builds_the_same_model_again() -> None:
    model = build("efficientnet-lite0-unet", in_channels=3, classes=4, **SMALL)
    again = architecture(model)
    twin = build(again["name"], **again["options"])
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def norm_keys(name: str) -> Iterator[str]:
    yield from (f"{name}.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


def torchvision_keys() -> Iterator[str]:
    """`mobilenet_v2().state_dict()` without features.18 and the classifier."""
    yield "features.0.0.weight"
    yield from norm_keys("features.0.1")
    for block in range(1, 18):
        expand = 0 if block == 1 else 1
        for index in range(expand + 1):
            yield f"features.{block}.conv.{index}.0.weight"
            yield from norm_keys(f"features.{block}.conv.{index}.1")
        yield f"features.{block}.conv.{expand + 1}.weight"
        yield from norm_keys(f"features.{block}.conv.{expand + 2}")


def timm_keys() -> Iterator[str]:
    """`timm.create_model("efficientnet_lite0").state_dict()` without conv_head, bn2 and the classifier."""
    yield "conv_stem.weight"
    yield from norm_keys("bn1")
    yield "blocks.0.0.conv_dw.weight"
    yield from norm_keys("blocks.0.0.bn1")
    yield "blocks.0.0.conv_pw.weight"
    yield from norm_keys("blocks.0.0.bn2")
    for stage, repeats in enumerate((2, 2, 3, 3, 4, 1), 1):
        for block in range(repeats):
            for index, conv in enumerate(("conv_pw", "conv_dw", "conv_pwl"), 1):
                yield f"blocks.{stage}.{block}.{conv}.weight"
                yield from norm_keys(f"blocks.{stage}.{block}.bn{index}")


@pytest.mark.parametrize(
    ("name", "keys"), [("mobilenetv2-unet", torchvision_keys), ("efficientnet-lite0-unet", timm_keys)]
)
def test_encoder_keys_are_those_of_torchvision_and_timm(name: str, keys: object) -> None:
    assert set(build(name).encoder.state_dict()) == set(keys())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenetv2-unet", "mobilenet_v2_1.0_imagenet_folded_torchvision_keys.npz"),
        ("efficientnet-lite0-unet", "efficientnet_lite0_int8_perchannel_timm_keys.npz"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_imagenet_weights_load_and_their_batch_norms_come_back(name: str, file: str, channels: int) -> None:
    if not WEIGHTS.is_dir():
        pytest.skip("the pretrained weights do not lie beside this repository")
    encoder = build(name, in_channels=channels).encoder
    image = torch.randn(4, channels, 64, 96, generator=torch.Generator().manual_seed(0))
    assert load_encoder_weights(encoder, WEIGHTS / file, image) == len(list(convolutions(encoder)))
    inside = [n for _, _, _, n in convolutions(encoder)]
    encoder.train()
    trained = encoder(image)
    encoder.eval()
    for a, b in zip(trained, encoder(image), strict=True):
        assert a.std() > 0
        # Batch statistics and the restored ones agree, or fine-tuning would start from another function.
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.9
    assert max(float(n.running_var.max()) for n in inside) > 1.5  # type: ignore[union-attr]


def folded_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Weights with each batch norm folded into a bias, as they are often published."""
    state = {}
    for index, (name, conv, _, norm) in enumerate(convolutions(encoder)):
        generator = torch.Generator().manual_seed(index)
        state[f"{name}.weight"] = conv.weight.detach().clone()
        state[f"{name}.bias"] = torch.randn(norm.num_features, generator=generator) * 0.1
    return state


def folded_forward(encoder: nn.Module, state: dict[str, Tensor], image: Tensor) -> tuple[Tensor, ...]:
    for name, conv, _, norm in convolutions(encoder):
        conv.weight.data.copy_(state[f"{name}.weight"])
        norm.weight.data.fill_(1)
        norm.bias.data.copy_(state[f"{name}.bias"])
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
    return encoder.eval()(image)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ENCODERS)
def test_unfolding_batch_norms_keeps_the_function_on_other_images(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, reference = (build(name, **SMALL).encoder for _ in range(2))
    state = folded_state(reference)
    np.savez(tmp_path / "folded.npz", **{f"backbone.{k}": v.numpy() for k, v in state.items()})
    load_encoder_weights(encoder, tmp_path / "folded.npz", torch.randn(4, 1, 64, 64))
    image = torch.randn(2, 1, 64, 96)
    for got, want in zip(encoder.eval()(image), folded_forward(reference, state, image), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    first = next(norm for _, _, _, norm in convolutions(encoder))
    assert float(first.running_var.std()) > 0  # type: ignore[union-attr]


def test_int8_weights_are_scaled_per_output_channel(tmp_path: Path) -> None:
    encoder = build("mobilenetv2-unet", **SMALL).encoder
    arrays: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for name, conv, _, _ in convolutions(encoder):
        arrays[f"{name}.weight_int8"] = rng.integers(-127, 128, conv.weight.shape, np.int8)
        arrays[f"{name}.weight_scale"] = rng.uniform(0.01, 0.02, conv.out_channels).astype(np.float32)
        arrays[f"{name}.bias"] = np.zeros(conv.out_channels, np.float32)
    np.savez(tmp_path / "int8.npz", **arrays)
    load_encoder_weights(encoder, tmp_path / "int8.npz", torch.randn(2, 1, 64, 64))
    for name, conv, _, _ in convolutions(encoder):
        want = arrays[f"{name}.weight_int8"] * arrays[f"{name}.weight_scale"][:, None, None, None]
        np.testing.assert_allclose(conv.weight.detach().numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_with_batch_norm_load_as_they_are(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = build("mobilenetv2-unet", in_channels=3, **SMALL).encoder
    for _, _, _, norm in convolutions(trained):
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    state = {f"module.{k}": v for k, v in trained.state_dict().items()}
    path = tmp_path / f"trained{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        save_file(state, path)
    encoder = build("mobilenetv2-unet", in_channels=3, **SMALL).encoder
    load_encoder_weights(encoder, path, torch.zeros(1, 3, 64, 64))
    image = torch.randn(1, 3, 64, 64)
    for got, want in zip(encoder.eval()(image), trained.eval()(image), strict=True):
        torch.testing.assert_close(got, want)


def test_gray_input_gets_the_sum_over_the_colours(tmp_path: Path) -> None:
    trained = build("mobilenetv2-unet", in_channels=3, **SMALL).encoder
    save_file(trained.state_dict(), tmp_path / "rgb.safetensors")
    encoder = build("mobilenetv2-unet", in_channels=1, **SMALL).encoder
    load_encoder_weights(encoder, tmp_path / "rgb.safetensors", torch.zeros(1, 1, 64, 64))
    gray = torch.randn(1, 1, 64, 64)
    for got, want in zip(encoder.eval()(gray), trained.eval()(gray.expand(1, 3, 64, 64)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    state = build("mobilenetv2-unet", **SMALL).encoder.state_dict()
    calibration = torch.zeros(1, 1, 64, 64)
    save_file({k: v for k, v in state.items() if k != "features.3.conv.2.weight"}, tmp_path / "short.safetensors")
    with pytest.raises(ConversionError, match=r"no weights for features.3.conv.2"):
        load_encoder_weights(build("mobilenetv2-unet", **SMALL).encoder, tmp_path / "short.safetensors", calibration)
    save_file(state, tmp_path / "narrow.safetensors")
    with pytest.raises(ConversionError, match=r"features.0.0 has shape .* the encoder expects \(32, 1, 3, 3\)"):
        load_encoder_weights(build("mobilenetv2-unet").encoder, tmp_path / "narrow.safetensors", calibration)
    save_file(state | {"features.0.1.bias": torch.zeros(3)}, tmp_path / "norm.safetensors")
    with pytest.raises(ConversionError, match=r"the batch norm of features.0.0 has another shape"):
        load_encoder_weights(build("mobilenetv2-unet", **SMALL).encoder, tmp_path / "norm.safetensors", calibration)
    bare = {k: v for k, v in state.items() if "running" not in k}
    save_file(bare, tmp_path / "bare.safetensors")
    with pytest.raises(ConversionError, match="neither a batch norm nor a folded bias"):
        load_encoder_weights(build("mobilenetv2-unet", **SMALL).encoder, tmp_path / "bare.safetensors", calibration)
