"""A smaller network taught by the source: a student of another architecture, or one that starts from its weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from edgeseg.converters.macs import macs
from edgeseg.converters.models.build import STUDENT, Segmenter, build
from edgeseg.converters.recipe import Distill
from edgeseg.converters.source import Source
from edgeseg.converters.teaching import Lesson, Teaching
from edgeseg.errors import BadInput, GateFailed

Latency = Callable[[nn.Module], float]
"""Median milliseconds of a network's int8 form in the engine that the recipe names, one thread."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture that a search has looked at.

    Attributes:
        options: of the student.
        macs: multiply-accumulates of one frame.
        latency_ms: measured; None where no engine was asked.
        val_dice: after a short training; None where it was too slow to be trained.
    """

    options: dict[str, Any]
    macs: int
    latency_ms: float | None
    val_dice: float | None = None


def student_of(source: Source, distill: Distill, options: dict[str, Any] | None = None) -> Segmenter:
    """The student of a recipe for the source's input and classes, with all weights of the source that fit it.

    Raises:
        BadInput: for an unknown architecture or option, or an input size that it cannot take.
    """
    preprocess = source.preprocess
    chosen = dict(distill.options) if options is None else options
    torch.manual_seed(distill.seed)
    model = build(distill.student, in_channels=preprocess.channels, classes=len(source.classes), **chosen)
    if preprocess.height % model.divisor or preprocess.width % model.divisor:
        raise BadInput(
            f"{distill.student} takes sizes divisible by {model.divisor}, the source has "
            f"{preprocess.height}x{preprocess.width}"
        )
    take_over(model, source.network.module)
    return model


def take_over(student: nn.Module, teacher: nn.Module) -> int:
    """Copy every tensor that has the same name and shape in both; returns how many."""
    known = teacher.state_dict()
    own = student.state_dict()
    shared = {k: v for k, v in known.items() if k in own and own[k].shape == v.shape}
    student.load_state_dict(shared, strict=False)
    return len(shared)


def search(
    teaching: Teaching,
    distill: Distill,
    latency: Latency | None,
    report: Callable[[Candidate], None] = lambda candidate: None,
) -> list[Candidate]:
    """Train every pair of search_widths and search_blocks that is fast enough for a short while; best first.

    Args:
        teaching: the source with its pool.
        distill: the recipe's section.
        latency: measures a network; needed where `latency_ms` is set.
        report: called with every candidate.

    Raises:
        BadInput: for lists that do not fit together.
        GateFailed: none is fast enough; names the nearest.
    """
    if distill.student != STUDENT:
        raise BadInput(f"a search is over {STUDENT}s, not {distill.student}: leave out search_widths")
    found = []
    for number, (widths, blocks) in enumerate(_pairs(distill)):
        options = {**distill.options, "widths": widths, "blocks": blocks}
        model = student_of(teaching.source, distill, options)
        cost = latency(model) if latency else None
        candidate = Candidate(options, macs(model, teaching.source.normalised_example), cost)
        if distill.latency_ms is None or (cost is not None and cost <= distill.latency_ms):
            record = teaching.fit(model, f"search-{number}", Lesson.of(distill, distill.search_samples))
            candidate = replace(candidate, val_dice=record["val_dice"])
        report(candidate)
        found.append(candidate)
    trained = [c for c in found if c.val_dice is not None]
    if not trained:
        nearest = min(found, key=lambda c: c.latency_ms or 0.0)
        raise GateFailed(
            f"no student reaches {distill.latency_ms:g} ms in {distill.engine}; the nearest, {nearest.options}, takes "
            f"{nearest.latency_ms:.3f} ms: allow more, or search smaller ones"
        )
    return sorted(trained, key=lambda c: -(c.val_dice or 0.0))


def _pairs(distill: Distill) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    options = distill.options
    widths = distill.search_widths or ((tuple(options["widths"]),) if "widths" in options else ())
    blocks = distill.search_blocks or ((tuple(options["blocks"]),) if "blocks" in options else ())
    defaults = build(STUDENT).options
    pairs = list(itertools.product(widths or (defaults.widths,), blocks or (defaults.blocks,)))  # type: ignore[union-attr]
    if fitting := [(w, b) for w, b in pairs if len(w) == len(b)]:
        return fitting
    raise BadInput("no entry of search_widths has as many stages as one of search_blocks")


def distill(
    teaching: Teaching,
    options: Distill,
    latency: Latency | None = None,
    report: Callable[[Candidate], None] = lambda candidate: None,
) -> tuple[Segmenter, dict[str, Any]]:
    """Search, where the recipe says so, and teach the student in full.

    Returns:
        The student in eval mode, and the record for the manifest.

    Raises:
        BadInput, GateFailed: as in `search`.
    """
    chosen = dict(options.options)
    candidates: list[Candidate] = []
    if options.search_widths or options.search_blocks:
        candidates = search(teaching, options, latency, report)
        chosen = candidates[0].options
    model = student_of(teaching.source, options, chosen)
    record = teaching.fit(model, "distill", Lesson.of(options))
    found = [asdict(candidate) for candidate in candidates]
    return model.eval(), {"student": options.student, "options": chosen, "search": found, **record}
