"""An artifact of a bundle becomes a session: the one way in, for segmenters and measurements alike."""

from __future__ import annotations

import re

from edgeseg import plugins
from edgeseg.bundle import read_model
from edgeseg.errors import InferenceError
from edgeseg.types import Artifact, Bundle, Runtime, Session


def open_session(
    bundle: Bundle, artifact: Artifact, runtime: str, *, device: str = "auto", threads: int | None = None
) -> Session:
    """Load an artifact from memory, after its files were checked once more.

    Args:
        bundle: which the artifact is from.
        artifact: one of its artifacts.
        runtime: a name of `edgeseg.plugins.RUNTIMES`.
        device: of that runtime, or "auto".
        threads: CPU threads; None leaves it to the engine.

    Raises:
        BundleError: a file was changed since the bundle was opened.
        InferenceError: the engine is older than the bundle allows, or does not accept the artifact.
        NoSuchDevice, MissingDependency: as `Runtime.load`.
    """
    engine = plugins.runtime(runtime)
    _check_version(bundle, engine)
    return engine.load(read_model(artifact), device=device, threads=threads)


def _check_version(bundle: Bundle, engine: Runtime) -> None:
    lowest = bundle.manifest.min_runtimes.get(engine.name)
    if lowest and _numbers(engine.version()) < _numbers(lowest):
        raise InferenceError(
            f"{engine.name} is {engine.version()} here, {bundle.path.name} needs {lowest} or newer: upgrade it"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, as in (1, 31, 1)."""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])
