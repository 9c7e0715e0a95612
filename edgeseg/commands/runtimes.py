"""`edgeseg runtimes`: what can run here, proven by running it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edgeseg import plugins
from edgeseg.commands.table import print_table
from edgeseg.errors import InferenceError, MissingDependency
from edgeseg.runtimes.runtime import DeviceProof, EngineRuntime

_UNVERIFIED = "not verified on hardware"


@dataclass(frozen=True, slots=True)
class _Report:
    """What is known of one runtime on this machine; `install` is the pip command where the engine is missing."""

    name: str
    formats: tuple[str, ...]
    version: str | None = None
    devices: tuple[DeviceProof, ...] = ()
    reason: str | None = None
    install: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "formats": list(self.formats),
            "devices": [
                {
                    "name": d.name,
                    "usable": d.usable,
                    "reason": d.reason or None,
                    "verified": d.verified,
                    "executed": d.executed and asdict(d.executed),
                }
                for d in self.devices
            ],
            "installed": self.version is not None,
            "reason": self.reason,
            "install": self.install,
        }


@click.command(
    epilog="Example:  edgeseg runtimes --json runtimes.json",
    short_help="List the engines proven usable here, and why others are not.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as JSON too.")
def runtimes(json_file: Path | None) -> None:
    """List the engines proven usable here, and why others are not.

    A device counts as usable when it has just run a tiny model and given the right numbers; what executed it, and in
    which precision, is the engine's own record.
    """
    reports = [_report(name) for name in (*plugins.ENGINES, "fake")]
    if json_file is not None:
        document = {"schema": 1, "runtimes": [report.as_json() for report in reports]}
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    rows, styles = _rows(reports)
    print_table("", ["runtime", "version", "formats", "device", "usable", "ran the probe", "note"], rows, styles=styles)


def _report(name: str) -> _Report:
    runtime = plugins.runtime(name)
    formats = tuple(sorted(str(format) for format in runtime.formats))
    try:
        version = runtime.version()
        return _Report(name, formats, version, _proofs(runtime))
    except MissingDependency as error:
        return _Report(name, formats, reason=str(error), install=error.command)
    except (InferenceError, ImportError) as error:
        # An engine that is there but broken must not hide the others.
        return _Report(name, formats, reason=" ".join(f"{type(error).__name__}: {error}".split()))


def _proofs(runtime: Any) -> tuple[DeviceProof, ...]:
    if isinstance(runtime, EngineRuntime):
        return runtime.proofs()
    return tuple(DeviceProof(name, True) for name in runtime.devices())


def _rows(reports: list[_Report]) -> tuple[list[list[str | None]], list[str | None]]:
    rows: list[list[str | None]] = []
    styles: list[str | None] = []
    for report in reports:
        formats = " ".join(report.formats)
        if report.version is None:
            rows.append([report.name, None, formats, None, "no", None, report.reason])
            styles.append("yellow")
        for device in report.devices:
            usable = "yes" if device.usable else "no"
            ran = f"{device.executed.provider} {device.executed.precision}" if device.executed else None
            rows.append([report.name, report.version, formats, device.name, usable, ran, _note(device)])
            styles.append("green" if device.usable else "dim")
    return rows, styles


def _note(device: DeviceProof) -> str:
    return "; ".join(part for part in (device.reason, "" if device.verified else _UNVERIFIED) if part)
