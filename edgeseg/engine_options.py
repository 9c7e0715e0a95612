"""What engines may be told beyond device and threads, and a plan of engines: for profiles and runtimes alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from edgeseg.errors import BadInput

Value = bool | int | str
Options = Mapping[str, Value]

# What an option may be: a type, a range of whole numbers, or words to choose from. docs/gpu.md says what each one does.
OPTIONS: Mapping[str, Mapping[str, type | range | tuple[str, ...]]] = {
    "litert": {"delegate": ("xnnpack", "none")},
    "onnxruntime": {
        "cuda_conv_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
        "cuda_memory_mb": range(1, 1 << 20),
        "cuda_tf32": bool,
        "tensorrt_builder_level": range(6),
        "tensorrt_cache_dir": str,
        "tensorrt_dla_core": range(8),
        "tensorrt_engine_cache": bool,
        "tensorrt_fp16": bool,
        "tensorrt_int8": bool,
        "tensorrt_workspace_mb": range(1, 1 << 20),
    },
    "openvino": {
        "cache_dir": str,
        "inference_precision": ("f32", "f16", "bf16"),
        "performance_hint": ("LATENCY", "THROUGHPUT"),
        "streams": range(1, 257),
    },
}


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine worth trying, and how.

    Attributes:
        runtime: by edgeseg's name.
        devices: of that runtime, best first; empty for the runtime's own order.
        precisions: of artifacts, best first; empty for all.
        threads: of the CPU; None for what is asked for otherwise.
        options: what else the engine is told.
    """

    runtime: str
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    threads: int | None = None
    options: Options = field(default_factory=dict, hash=False)


Plan = Sequence[EngineChoice]
"""Engines worth trying, best first."""


def check_options(runtime: str, options: Mapping[str, object], where: str = "") -> Options:
    """The options, where an engine knows all of them.

    Args:
        runtime: by edgeseg's name.
        options: by name.
        where: they were found, for the message; "" for nowhere in particular.

    Raises:
        BadInput: an unknown key, with the nearest known one, or a value that it cannot have.
    """
    known = OPTIONS.get(runtime, {})
    checked: dict[str, Value] = {}
    for name, value in options.items():
        check_word(name, known, "option", f" of {runtime}{f' in {where}' if where else ''}")
        checked[name] = _checked(value, known[name], f"{where}.options.{name}" if where else f"{runtime}'s {name}")
    return checked


def check_word(word: str, words: Iterable[str], kind: str, where: str = "") -> None:
    """Raise BadInput for a word that is none of the known ones, with the nearest of them."""
    known = sorted(words)
    if word in known:
        return
    near = get_close_matches(word, known, 1, cutoff=0.6)
    expected = f"expected one of {', '.join(known)}" if known else "there is none"
    raise BadInput(f"unknown {kind} {word!r}{where}, " + (f"did you mean {near[0]!r}?" if near else expected))


def choice_of(plan: Plan, runtime: str) -> EngineChoice:
    """What a plan says of a runtime; nothing in particular where it does not name it."""
    return next((choice for choice in plan if choice.runtime == runtime), EngineChoice(runtime))


def with_options(plan: Plan, options: Mapping[str, Mapping[str, object]]) -> Plan:
    """A plan with more options, by runtime; they count before its own.

    Without a plan it is one of all runtimes. One that is given options is worth trying, if last.

    Raises BadInput as `check_options`, or for a runtime that is none.
    """
    for runtime in options:
        check_word(runtime, OPTIONS, "runtime", " in options")
    named = [choice.runtime for choice in plan] or list(OPTIONS)
    whole = [*(plan or map(EngineChoice, OPTIONS)), *(EngineChoice(r) for r in options if r not in named)]
    more = {runtime: check_options(runtime, values) for runtime, values in options.items()}
    return tuple(replace(c, options={**c.options, **more.get(c.runtime, {})}) for c in whole) if options else plan


def _checked(value: object, kind: type | range | tuple[str, ...], where: str) -> Value:
    if isinstance(kind, tuple):
        right, expected = value in kind, f"one of {', '.join(kind)}"
    elif isinstance(kind, range):
        right, expected = type(value) is int and value in kind, f"a whole number from {kind[0]} to {kind[-1]}"
    else:
        right, expected = type(value) is kind and value != "", "true or false" if kind is bool else "a text"
    if not right or not isinstance(value, bool | int | str):
        raise BadInput(f"{where} is {value!r}, expected {expected}")
    return value
