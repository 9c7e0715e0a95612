"""Every choice of a conversion as one TOML file, checked in full before torch is imported.

[prune]
ratio = 0.5

[quantize]
calibration_frames = 64

[gates]
agreement_min = 0.995
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgeseg.errors import BadInput
from edgeseg.evidence import Gates
from edgeseg.scan_area import check_shares
from edgeseg.types import ScanArea


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to a frame before the network, beside what the source says.

    Attributes:
        scan_area: "detect", or left, top, width and height as shares of the frame; None for what the source says, or
            all of the frame.
    """

    scan_area: Literal["detect"] | tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Quantize:
    """How int8 artifacts are made.

    Attributes:
        calibration_frames: at most this many, evenly spaced over the calibration folder.
        per_channel: ONNX weights have one scale per output channel.
        bias_correction: NNCF's fast bias correction for OpenVINO.
        unify_concat: OpenVINO: one scale for the inputs of a Concat; "auto" tries both and keeps the more exact one.
        aware_samples: frames seen in fine-tuning under int8 rounding, taught by the source, before all that; 0 leaves
            it out.
        learning_rate: of that fine-tuning.
    """

    calibration_frames: int = 64
    per_channel: bool = True
    bias_correction: bool = False
    unify_concat: bool | Literal["auto"] = "auto"
    aware_samples: int = 0
    learning_rate: float = 2e-4


@dataclass(frozen=True, slots=True)
class Evaluate:
    """How artifacts are compared with their source.

    Attributes:
        frames: at most this many, evenly spaced over the evaluation folder.
        golden_frames: of those, how many stay in the bundle with the source's results.
    """

    frames: int = 64
    golden_frames: int = 8


@dataclass(frozen=True, slots=True)
class Pool:
    """The augmented frames that the source labels once; distillation and all fine-tuning draw from them.

    Attributes:
        frames: how many.
        augmentation: "standard" or "strong".
        seed: of the augmentation.
    """

    frames: int = 16384
    augmentation: Literal["standard", "strong"] = "strong"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distill:
    """How the source teaches a student (Hinton et al. 2015).

    Attributes:
        student: "edge-unet", or a reference segmenter, which starts from all weights of the source that fit it.
        options: of the student's architecture.
        search_widths, search_blocks: lists of `widths` and `blocks` to try as an edge-unet; every pair is trained on
            `search_samples` frames, and the best one that is fast enough is trained in full.
        latency_ms: of the int8 student in `engine`, one thread; slower candidates are left out of the search.
        engine: a runtime.
        samples: frames seen in training, drawn from the pool again and again.
        search_samples: the same for each candidate of a search.
        batch_size, learning_rate, weight_decay, ema_decay, seed: of the training (AdamW, cosine, averaged weights).
        truth_weight: share of the loss that the reference masks have, where there are any; the rest is the source's.
    """

    student: str = "edge-unet"
    options: Mapping[str, Any] = field(default_factory=dict)
    search_widths: tuple[tuple[int, ...], ...] = ()
    search_blocks: tuple[tuple[int, ...], ...] = ()
    latency_ms: float | None = None
    engine: Literal["openvino", "onnxruntime", "litert"] = "openvino"
    samples: int = 245_760
    search_samples: int = 20_000
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    truth_weight: float = 0.3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prune:
    """Structured pruning: whole channels leave, in all layers that depend on each other (Fang et al., CVPR 2023).

    Exactly one of `ratio`, `macs` and `latency_ms` says how far to go.

    Attributes:
        ratio: share of the channels to remove.
        macs: share of the multiply-accumulates to keep, at most.
        latency_ms: of the int8 model in `engine`, one thread, at most.
        engine: a runtime, for `latency_ms`.
        scope: "layer" removes the same share everywhere, "global" what matters least wherever it is.
        importance: "taylor" (gradient times weight on labelled frames, Molchanov et al. 2019) or "magnitude".
        round_to: channel counts stay multiples of this, as int8 kernels like them.
        steps: how many rounds of pruning, each followed by fine-tuning.
        protect: a layer whose loss of `probe` of its channels alone costs more Dice than this is left whole; false
            leaves out the scan.
        probe: share of a layer's channels that the sensitivity scan removes.
        ignore: names of layers that are never pruned.
        samples: frames seen in fine-tuning, all rounds together.
        batch_size, learning_rate, weight_decay, ema_decay, truth_weight, seed: as in `Distill`.
    """

    ratio: float | None = None
    macs: float | None = None
    latency_ms: float | None = None
    engine: Literal["openvino", "onnxruntime", "litert"] = "openvino"
    scope: Literal["layer", "global"] = "layer"
    importance: Literal["taylor", "magnitude"] = "taylor"
    round_to: int = 8
    steps: int = 3
    protect: float | Literal[False] = 0.05
    probe: float = 0.5
    ignore: tuple[str, ...] = ()
    samples: int = 60_000
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    truth_weight: float = 0.3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sparsify:
    """Unstructured pruning by NNCF: zeros make the download smaller, never the model faster.

    Attributes:
        mode: "magnitude-local" (the same share of zeros in every layer), "magnitude-global" or "regularization".
        ratio: share of the weights that become zero.
        schedule: how the share grows over the fine-tuning: "exponential" or "multistep"; magnitude modes only.
        adaptation_frames: batch-norm statistics are adapted on this many frames afterwards; 0 leaves that out.
        samples: frames seen in fine-tuning.
        batch_size, learning_rate, weight_decay, truth_weight, seed: as in `Distill`.
    """

    mode: Literal["magnitude-local", "magnitude-global", "regularization"] = "magnitude-global"
    ratio: float = 0.5
    schedule: Literal["exponential", "multistep"] = "exponential"
    adaptation_frames: int = 64
    samples: int = 20_000
    batch_size: int = 16
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    truth_weight: float = 0.3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """The choices of a conversion. Gates that are None are off; in TOML a gate is switched off by `false`.

    What is None is not done. The order is fixed: distill, prune, sparsify, quantize.
    """

    preprocess: Preprocessing = field(default_factory=Preprocessing)
    pool: Pool = field(default_factory=Pool)
    distill: Distill | None = None
    prune: Prune | None = None
    sparsify: Sparsify | None = None
    quantize: Quantize = field(default_factory=Quantize)
    evaluate: Evaluate = field(default_factory=Evaluate)
    gates: Gates = field(default_factory=Gates)

    @property
    def compresses(self) -> bool:
        """Whether the network itself is changed, and not only its arithmetic."""
        return any((self.distill, self.prune, self.sparsify, self.quantize.aware_samples))

    @property
    def scan_area(self) -> ScanArea | None:
        """The one of `preprocess`."""
        chosen = self.preprocess.scan_area
        if chosen is None:
            return None
        return ScanArea(detect=True) if chosen == "detect" else ScanArea(False, *chosen)

    def with_scan_area(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a source with the scan area of this recipe, where they have none of their own."""
        return {**options, "scan_area": options.get("scan_area") or self.scan_area}


_SECTIONS: dict[str, type[Any]] = {
    "preprocess": Preprocessing,
    "pool": Pool,
    "distill": Distill,
    "prune": Prune,
    "sparsify": Sparsify,
    "quantize": Quantize,
    "evaluate": Evaluate,
    "gates": Gates,
}

# option: (lowest, highest), None where there is no end; a limit itself is allowed unless it is in _OPEN
_RANGES: dict[str, tuple[float, float | None]] = {
    "calibration_frames": (1, None),
    "frames": (1, None),
    "golden_frames": (1, None),
    "ratio": (0, 1),
    "macs": (0, 1),
    "latency_ms": (0, None),
    "round_to": (1, 64),
    "steps": (1, 100),
    "protect": (0, 1),
    "probe": (0, 1),
    "samples": (1, None),
    "search_samples": (1, None),
    "adaptation_frames": (0, None),
    "aware_samples": (0, None),
    "batch_size": (2, 4096),
    "learning_rate": (0, 1),
    "weight_decay": (0, 1),
    "ema_decay": (0, 1),
    "truth_weight": (0, 1),
    "logit_error_max": (0, None),
    "agreement_min": (0, 1),
    "sqnr_db_min": (-1000, 1000),
    "hd95_max": (0, 1),
    "area_difference_max": (0, None),
    "shift_max": (0, 1),
    "hc_difference_max_mm": (0, None),
    "small_dice_source_min": (0, 1),
    "worst_tenth_dice_source_min": (0, 1),
    "exam_dice_source_min": (0, 1),
    "dice_drop_max": (-1, 1),
    "hc_increase_max_mm": (-1000, None),
    "worst_dice_min": (0, 1),
    "exam_dice_drop_max": (-1, 1),
    "empty_false_positive_max": (0, 1),
    "small_share": (0, 1),
}
_OPEN = frozenset(("ratio", "macs", "latency_ms", "probe", "learning_rate"))


_LARGEST_RECIPE = 1 << 20


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe.

    Raises:
        BadInput: for a file that is not TOML, an unknown section or option, or a value of the wrong type or range.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(_LARGEST_RECIPE + 1)
        if len(data) > _LARGEST_RECIPE:
            raise BadInput(f"{path} has more than {_LARGEST_RECIPE >> 10} KiB: not a recipe")
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}") from error
    _refuse_unknown(content, Recipe, str(path))
    for name, kind in _SECTIONS.items():
        if name in content:
            _refuse_unknown(content[name], kind, f"{path} [{name}]")
    if "gates" in content:
        content["gates"] = {k: None if v is False else v for k, v in content["gates"].items()}
    try:
        recipe = msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path}: {error}") from error
    for name in _SECTIONS:
        _check_ranges(getattr(recipe, name), f"{path} [{name}]")
    if recipe.prune:
        _check_target(recipe.prune, str(path))
    if recipe.scan_area:
        _check_shares(recipe.scan_area, str(path))
    return recipe


def _check_ranges(section: Any, where: str) -> None:
    for option in () if section is None else fields(section):
        value = getattr(section, option.name)
        if option.name not in _RANGES or value is None or value is False:
            continue
        low, high = _RANGES[option.name]
        inside = low <= value and (high is None or value <= high)
        if not inside or (option.name in _OPEN and value in (low, high)):
            between = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            above = f"above {low:g}" if high is None else f"between {low:g} and {high:g}"
            expected = above if option.name in _OPEN else between
            raise BadInput(f"{where}: {option.name} is {value}, expected {expected}")


def _check_target(prune: Prune, path: str) -> None:
    targets = {n: v for n in ("ratio", "macs", "latency_ms") if (v := getattr(prune, n)) is not None}
    if len(targets) != 1:
        raise BadInput(
            f"{path} [prune] has {' and '.join(targets) or 'no target'}, "
            f"expected exactly one of ratio, macs, latency_ms"
        )


def _check_shares(area: ScanArea, path: str) -> None:
    try:
        check_shares(area)
    except BadInput as error:
        raise BadInput(f"{path} [preprocess]: {error}") from error


def _refuse_unknown(content: Any, kind: type[Any], where: str) -> None:
    if not isinstance(content, dict):
        raise BadInput(f"{where} is {content!r}, expected a section of options")
    known = [f.name for f in fields(kind)]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(known)}"
            raise BadInput(f"{where} has the unknown option {name!r}: {hint}")
