"""The aarch64 wheels of a board: the versions that are installed here, so that only the processor differs."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import edgeseg
from edgeseg.boards.aarch64.board import Wheel
from edgeseg.boards.aarch64.tools import call

_EXTRAS = ("onnx", "openvino", "tflite", "dicom")
_TEST_TOOLS = frozenset({"pytest", "pytest-timeout"})
_GLIBC_MINOR = 36  # Debian 12's; a wheel tagged for a newer one would not load
_DOWNLOAD_S, _INSTALL_S = 1200.0, 600.0
_TARGET = (
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=311",
    "--platform=manylinux2014_aarch64",
    *(f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, _GLIBC_MINOR + 1)),
)
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


def requirements() -> tuple[str, ...]:
    """What the board gets: edgeseg's dependencies, its engines and pytest, pinned to the versions that are here."""
    by_extra = _by_extra()
    found = [line for extra in ("", *_EXTRAS) for line in by_extra.get(extra, ())]
    found += [line for line in by_extra.get("dev", ()) if _name(line) in _TEST_TOOLS]
    return tuple(sorted({_pinned(_name(line)) or line for line in found}))


def fetch(wanted: Sequence[str], known: Iterable[Wheel], folder: Path) -> tuple[Wheel, ...]:
    """The wheels for these requirements and all that they need, in a folder.

    Args:
        wanted: as `requirements` gives them.
        known: what they came to before; () where that is not known. Where all of these are in the folder, with the
            bytes that they had, nothing is asked for.
        folder: of downloads.

    Raises:
        BoardError: where pip finds no such wheel, or no network.
    """
    known = tuple(known)
    if known and all(_is_here(wheel, folder) for wheel in known):
        return known
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part", dir=folder) as part:
        constraints = Path(part) / "constraints.txt"
        constraints.write_text("\n".join(_installed()) + "\n", encoding="utf-8")
        command = [*_PIP, "download", "-q", *_TARGET, f"--find-links={folder}", f"--dest={part}"]
        call("pip download", [*command, f"--constraint={constraints}", *wanted], _DOWNLOAD_S)
        files = sorted(Path(part).glob("*.whl"))
        for file in files:
            file.replace(folder / file.name)
    return tuple(Wheel(file.name, _sha256(folder / file.name)) for file in files)


def install(wheels: Iterable[Wheel], folder: Path, site: Path) -> None:
    """Unpack wheels of a folder into a new folder of packages. Raises BoardError where pip cannot."""
    shutil.rmtree(site, ignore_errors=True)
    command = [*_PIP, "install", "-q", *_TARGET, "--no-deps", "--no-index", "--no-compile", f"--target={site}"]
    call("pip install", [*command, *(str(folder / wheel.file) for wheel in wheels)], _INSTALL_S)


def _by_extra() -> dict[str, list[str]]:
    """The requirements of edgeseg by extra, "" for those without; a checkout's own are newer than what is installed."""
    project = Path(edgeseg.__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        return {"": table["dependencies"], **table["optional-dependencies"]}
    found: dict[str, list[str]] = {}
    for line in metadata.requires("edgeseg") or ():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        extra = re.search(r"extra == ['\"]([^'\"]+)", marker)
        found.setdefault(extra[1] if extra else "", []).append(requirement)
    return found


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _pinned(name: str) -> str | None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return None if "+" in version else f"{name}=={version}"


def _installed() -> list[str]:
    """A constraint for all that is installed here: what the requirements need has the same version on both sides."""
    pins = (_pinned(found.metadata["Name"]) for found in metadata.distributions() if found.metadata["Name"])
    return sorted({pin for pin in pins if pin and not pin.startswith("edgeseg=")})


def _is_here(wheel: Wheel, folder: Path) -> bool:
    file = folder / wheel.file
    return file.is_file() and _sha256(file) == wheel.sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
