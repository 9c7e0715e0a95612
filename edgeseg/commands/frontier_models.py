"""The models that `edgeseg frontier` compares: bundles and sources, with names that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.bundle import open_bundle
from edgeseg.commands.candidates import open_source
from edgeseg.errors import BadInput
from edgeseg.golden import read_frame, read_logits
from edgeseg.preprocess import to_input
from edgeseg.types import Bundle, Preprocess

if TYPE_CHECKING:
    from edgeseg.converters.source import Source


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle or a source.

    Attributes:
        name: short, unique among the bundles or among the sources of a run.
        preprocess, classes: its own.
        macs: multiply-accumulates of one frame, where known.
        source: name of the source whose network this is; None where none of those measured is.
        size_mb: of a source's file.
    """

    name: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    macs: int | None = None
    source: str | None = None
    size_mb: float | None = None


def open_sources(specs: Sequence[str], options: Mapping[str, Any]) -> list[tuple[Model, Source]]:
    """Load sources with the options of `source_options`, which hold for all of them.

    Raises:
        MissingDependency: without torch.
        ConversionError: where one cannot be loaded.
        BadInput: where one is given twice.
    """
    names = short_names(specs)
    loaded = [(spec, open_source(spec, dict(options))) for spec in specs]
    return [(_source_model(names[spec], spec, source, options), source) for spec, source in loaded]


def _source_model(name: str, spec: str, source: Source, options: Mapping[str, Any]) -> Model:
    from edgeseg.converters.macs import macs

    file = next((f for f in (Path(spec), options.get("weights")) if f and f.is_file()), None)
    return Model(
        name,
        source.preprocess,
        source.classes,
        macs(source.network, source.example),
        name,
        file.stat().st_size / 1e6 if file else None,
    )


def open_bundles(paths: Sequence[Path], sources: Sequence[tuple[Model, Source]]) -> list[tuple[Model, Bundle]]:
    """Open bundles and find out which of the sources each was made from, unchanged.

    Raises:
        BundleError: where one is no bundle, or was changed.
        BadInput: where one is given twice.
    """
    names = short_names([str(p) for p in paths])
    opened = [(names[str(path)], open_bundle(path)) for path in paths]
    return [(_bundle_model(name, bundle, sources), bundle) for name, bundle in opened]


def _bundle_model(name: str, bundle: Bundle, sources: Sequence[tuple[Model, Source]]) -> Model:
    origin = next((model for model, source in sources if _is_made_of(bundle, source)), None)
    known = bundle.manifest.provenance.network.get("macs")
    macs = known if isinstance(known, int) else origin.macs if origin else None
    return Model(name, bundle.preprocess, bundle.classes, macs, origin.name if origin else None)


def _is_made_of(bundle: Bundle, source: Source) -> bool:
    """Whether the bundle's golden logits are those of this source: a pruned descendant names it too, and differs."""
    if not bundle.manifest.golden or bundle.preprocess != source.preprocess:
        return False
    golden = bundle.manifest.golden[0]
    own = source.run(to_input(read_frame(golden), source.preprocess))
    stored = read_logits(golden)
    return own.shape == stored.shape and bool(np.allclose(own, stored, rtol=1e-3, atol=1e-3 * np.ptp(stored)))


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest endings of paths, without suffix, that tell them apart. Raises BadInput for one given twice."""
    if doubles := {p for p in paths if paths.count(p) > 1}:
        raise BadInput(f"{min(doubles)} is given twice")
    parts = {p: _parts(p) for p in paths}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {p: "/".join(found[-depth:]) for p, found in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {p: p for p in paths}


def _parts(path: str) -> tuple[str, ...]:
    factory = ":" in path and not Path(path).exists()
    return (path.partition(":")[2],) if factory else Path(path).absolute().with_suffix("").parts


def check_classes(models: Sequence[Model]) -> tuple[str, ...]:
    """The classes that all models have. Raises BadInput where one has others."""
    first = models[0]
    for model in models:
        if model.classes != first.classes:
            raise BadInput(
                f"{model.name} has the classes {', '.join(model.classes)}, {first.name} {', '.join(first.classes)}: "
                f"they cannot be compared (--classes names those of a source)"
            )
    return first.classes
