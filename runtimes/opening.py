"""An artifact of a bundle becomes a session: the one way in, for segmenters and measurements alike."""

from __future__ import annotations

import re
from typing import TypedDict

from edgeseg import plugins
from edgeseg.bundle import read_model
from edgeseg.engine_options import EngineChoice, Options
from edgeseg.errors import ExecutionMismatch, InferenceError, NoSuchDevice
from edgeseg.execution import execution_faults
from edgeseg.runtimes.sandbox import Limits
from edgeseg.types import Artifact, Bundle, Session


class Told(TypedDict):
    """What `Runtime.load` takes beside the model."""

    device: str
    threads: int | None
    options: Options


def open_session(
    bundle: Bundle,
    artifact: Artifact,
    runtime: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    isolate: bool | Limits = False,
    strict: bool = False,
    choice: EngineChoice | None = None,
) -> Session:
    """Load an artifact from memory, after its files were checked once more.

    Args:
        bundle: which the artifact is from.
        artifact: one of its artifacts.
        runtime: a name of `edgeseg.plugins.RUNTIMES`.
        device: of that runtime, or "auto".
        threads: CPU threads; None leaves it to the engine.
        isolate: True or limits to have the engine in a process of its own: see `edgeseg.runtimes.isolated`.
        strict: whether anything that the engine does otherwise than asked for is an error.
        choice: what a plan says of the runtime: devices for "auto", threads instead of `threads`, options.

    Raises:
        BadInput: an option that the engine does not know.
        ExecutionMismatch: where `strict`: another device, another precision, or more layers than at conversion that
            fell back.
        BundleError: a file was changed since the bundle was opened.
        InferenceError: the engine is older than the bundle allows, or does not accept the artifact.
        EngineCrashed, EngineTimeout: of an engine in a process of its own.
        NoSuchDevice, MissingDependency: as `Runtime.load`.
    """
    told: Told = {"device": device, "threads": threads, "options": {}}
    if choice is not None:
        device = device if isolate else _planned(choice, device)
        told = {"device": device, "threads": choice.threads or threads, "options": choice.options}
    if isolate:
        session = _open_isolated(bundle, artifact, runtime, told, isolate if isinstance(isolate, Limits) else Limits())
    else:
        session = _open_here(bundle, artifact, runtime, told)
    if strict:
        _check_execution(artifact, runtime, session)
    return session


def _planned(choice: EngineChoice, device: str) -> str:
    """The device asked for, else the first of the plan's that works here."""
    if device != "auto" or not choice.devices:
        return device
    if len(choice.devices) == 1:
        return choice.devices[0]
    usable = plugins.runtime(choice.runtime).devices()
    found = next((name for name in choice.devices if name in usable), None)
    if found is None:
        wanted, there = ", ".join(choice.devices), ", ".join(usable) or "none"
        raise NoSuchDevice(f"{choice.runtime} can use none of the devices planned for ({wanted}); usable here: {there}")
    return found


def _open_here(bundle: Bundle, artifact: Artifact, runtime: str, told: Told) -> Session:
    engine = plugins.runtime(runtime)
    _check_version(bundle, runtime, engine.version())
    return engine.load(read_model(artifact), **told)


def _check_execution(artifact: Artifact, runtime: str, session: Session) -> None:
    try:
        faults = execution_faults(artifact, runtime, session.device, session.execution())
        if faults:
            raise ExecutionMismatch(f"{artifact.name} on {runtime} {session.device}: {'; '.join(faults)}")
    except BaseException:
        session.close()
        raise


def _open_isolated(bundle: Bundle, artifact: Artifact, runtime: str, told: Told, limits: Limits) -> Session:
    from edgeseg.runtimes.isolated import IsolatedWorker

    device = told["device"]
    if device != "cpu" and device in getattr(plugins.runtime(runtime), "device_names", ()):
        raise NoSuchDevice(
            f"{runtime} in a process of its own has the CPU only, asked for was {device}: its sandbox hides device "
            "files, so that this needs a bundle that is trusted, and no isolation (--no-isolate)"
        )
    worker = IsolatedWorker(runtime, limits)
    try:
        model = read_model(artifact)
        _check_version(bundle, runtime, worker.version)
        return worker.load(model, **told, last=True)
    except BaseException:
        worker.close()
        raise


def _check_version(bundle: Bundle, runtime: str, version: str) -> None:
    lowest = bundle.manifest.min_runtimes.get(runtime)
    if lowest and _numbers(version) < _numbers(lowest):
        raise InferenceError(f"{runtime} is {version} here, {bundle.path.name} needs {lowest} or newer: upgrade it")


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, as in (1, 31, 1)."""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])
