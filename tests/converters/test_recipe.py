"""Recipes: every option checked before anything heavy starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.converters.recipe import Distill, Evaluate, Prune, Quantize, Recipe, read_recipe
from edgeseg.errors import BadInput
from edgeseg.evidence import Gates


def write(folder: Path, text: str) -> Path:
    (folder / "r.toml").write_text(text)
    return folder / "r.toml"


def test_a_recipe_states_every_choice_and_keeps_the_other_defaults(tmp_path: Path) -> None:
    text = """
    [quantize]
    calibration_frames = 5
    bias_correction = true
    [evaluate]
    golden_frames = 2
    [gates]
    agreement_min = 0.9
    sqnr_db_min = false
    hd95_max = 0.02
    small_share = 0.1
    [distill]
    search_widths = [[16, 32, 64], [32, 32, 48]]
    [distill.options]
    mixes = 2
    [prune]
    macs = 0.4
    protect = false
    """
    want = Recipe(
        distill=Distill(search_widths=((16, 32, 64), (32, 32, 48)), options={"mixes": 2}),
        prune=Prune(macs=0.4, protect=False),
        quantize=Quantize(calibration_frames=5, bias_correction=True),
        evaluate=Evaluate(golden_frames=2),
        gates=Gates(agreement_min=0.9, sqnr_db_min=None, hd95_max=0.02, small_share=0.1),
    )
    assert read_recipe(write(tmp_path, text)) == want
    assert read_recipe(write(tmp_path, "")) == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[quantise]\n", r"unknown option 'quantise': did you mean 'quantize'\?"),
        ("[xyz]\n", "unknown option 'xyz': expected some of preprocess, pool, distill, prune, sparsify, quantize"),
        ("[prune]\nration = 0.5\n", r"\[prune\] has the unknown option 'ration': did you mean 'ratio'\?"),
        ("[prune]\nratio = 1.0\n", r"\[prune\]: ratio is 1.0, expected between 0 and 1"),
        ("[prune]\nmacs = 0\n", "macs is 0.*, expected between 0 and 1"),
        ("[prune]\nratio = 0.5\nmacs = 0.5\n", "has ratio and macs, expected exactly one of ratio, macs, latency_ms"),
        ("[prune]\n", "has no target, expected exactly one"),
        ("[prune]\nlatency_ms = -1\n", "latency_ms is -1.*, expected above 0"),
        ("[sparsify]\nmode = 'global'\n", r"Invalid enum value 'global'"),
        ("[sparsify]\nratio = -0.1\n", "ratio is -0.1, expected between 0 and 1"),
        ("[distill]\nsamples = 0\n", "samples is 0, expected at least 1"),
        ("[pool]\nframes = 0\n", "frames is 0, expected at least 1"),
        ("[quantize]\nframes = 3\n", r"\[quantize\] has the unknown option 'frames'"),
        ("[gates]\ndice = 3\n", r"\[gates\] has the unknown option 'dice'"),
        ("[quantize]\nper_channel = 1\n", "Expected `bool`, got `int`"),
        ("[gates]\nhd95 = 3\n", "unknown option 'hd95': did you mean 'hd95_max'"),
        ("[gates]\nagreement_min = 99.5\n", r"\[gates\]: agreement_min is 99.5, expected 0 to 1"),
        ("[gates]\nhd95_max = nan\n", "hd95_max is nan, expected 0 to 1"),
        ("[gates]\nsmall_share = false\n", "Expected `float`"),
        ("[gates]\nagreement_min = 'high'\n", r"Expected `float \| null`, got `str`"),
        ("[evaluate]\nframes = 0\n", "frames is 0, expected at least 1"),
        ("[evaluate]\ngolden_frames = -1\n", "golden_frames is -1, expected at least 1"),
        ("quantize = 3\n", "is 3, expected a section"),
        ("[quantize\n", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_recipe(write(tmp_path, text))
    assert "r.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_typed_error(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is not valid TOML"):
        read_recipe(tmp_path / "r.toml")


def test_a_device_file_is_not_read_for_ever() -> None:
    with pytest.raises(BadInput, match=r"/dev/zero has more than 1024 KiB: not a recipe"):
        read_recipe("/dev/zero")
