"""The environment of a run: which boards, how they are reached, what they are held to. One TOML file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edgeseg.boards.profile_check import check_tables, plain
from edgeseg.errors import BadInput

LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LEASE = "/tmp/edgeseg-hil.lease"
_TAG = re.compile(r"[a-z][a-z0-9_]+")
_COORDINATOR = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is held to on a board; None where it is not.

    Speed, memory and Dice are those of the fastest artifact that passed, which is the one a device would run.

    Attributes:
        p99_ms: at most, of the engine alone in the bench.
        fps: at least, in the bench.
        dice: at least, 0 to 1, against the source's masks of the golden frames.
        memory_mb: at most, 10^6 bytes, of the process.
        temperature_c: at most, during the soak.
        soak_p999_ms: at most, frame to result, in the soak.
        soak_missed: at most, deadlines missed and frames dropped in the soak.
        soak_drift_mib: at most, growth of memory in the soak.
    """

    p99_ms: float | None = None
    fps: float | None = None
    dice: float | None = None
    memory_mb: float | None = None
    temperature_c: float | None = None
    soak_p999_ms: float | None = None
    soak_missed: int = 0
    soak_drift_mib: float = 1.0


class Measures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured, and for how long.

    Attributes:
        threads: of each engine; by default what the board's profile says, where its entry names one, else 1.
        runtimes: to measure; all that are on the board by default.
        warm_up_rounds: of a bench that does not count; 0 for none, else at least 2.
        bench_rounds, bench_repeats: as of `edgeseg bench`.
        soak_minutes: as of `edgeseg soak`; 0 for none.
        soak_fps: frames a second.
        soak_deadline_ms: from frame to result; the time between two frames by default.
        timeout_s: of each step; the soak's own time comes on top.
    """

    threads: int | None = None
    runtimes: tuple[str, ...] = ()
    warm_up_rounds: int = 2
    bench_rounds: int = 30
    bench_repeats: int = 5
    soak_minutes: float = 0.1
    soak_fps: float = 10.0
    soak_deadline_ms: float | None = None
    timeout_s: float = 600.0


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where boards of the transport "labgrid" are asked for.

    Attributes:
        coordinator: host, or host and port, of labgrid's coordinator; $LG_COORDINATOR, else this machine's, by default.
        host_keys: public host keys of boards by the name of their place: the coordinator is not believed about them.
    """

    coordinator: str = ""
    host_keys: dict[str, str] = {}


class BoardEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One board: how it is reached and what runs there.

    Attributes:
        name: of the board, for people and records.
        transport: "local" for this machine, "ssh", or "labgrid" for ssh to a board of a fleet: see docs/fleet.md.
        profile: that it must be recognised as; any by default.
        host, port, user: of its sshd. A fleet tells them itself: there they are for `edgeseg hil fleet export` alone.
        key: path of the private key that it accepts, here.
        host_key: its public host key, as in "ssh-ed25519 AAAA...": no other is accepted.
        place: of the fleet that it is at; its name by default.
        filter: tags of a place: any free board of the fleet that has them, in place of a certain one.
        coordinator, host_keys: as of `Fleet`; those of the environment by default.
        work: folder on the board that is the harness's own; made if it is not there.
        command: of edgeseg on the board.
        python: on the board; the one that edgeseg runs on.
        lease: file on the board that runners lock.
        trusted_keys: public keys or folders of them, here: only bundles that one of them signed are installed. Without
            them signatures are not looked at, unless the board itself has trusted keys.
        limits, measures: of this board, in place of those of the environment.
    """

    name: str
    transport: Literal["local", "ssh", "labgrid"] = "ssh"
    profile: str = ""
    host: str = ""
    port: int = 22
    user: str = ""
    key: str = ""
    host_key: str = ""
    place: str = ""
    filter: dict[str, str] = {}
    coordinator: str = ""
    host_keys: dict[str, str] = {}
    work: str = "/var/tmp/edgeseg-hil"
    command: tuple[str, ...] = ("edgeseg",)
    python: str = "python3"
    lease: str = _LEASE
    trusted_keys: tuple[str, ...] = ()
    limits: Limits | None = None
    measures: Measures | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All boards of a lab, with what holds for each that says nothing else."""

    boards: tuple[BoardEntry, ...]
    fleet: Fleet = Fleet()
    limits: Limits = Limits()
    measures: Measures = Measures()

    def board(self, name: str) -> BoardEntry:
        """One of them, complete. Raises BadInput where there is none of that name."""
        found = {entry.name: entry for entry in self.boards}
        if name not in found:
            raise BadInput(f"unknown board {name!r}, expected one of {', '.join(found)}")
        entry = found[name]
        return msgspec.structs.replace(
            entry, limits=entry.limits or self.limits, measures=entry.measures or self.measures
        )


def read_environment(path: Path) -> Environment:
    """Read an environment file; paths of keys in it are relative to its folder.

    Raises BadInput in one line: the file, the key, what was expected, the nearest known word.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadInput(f"{path} cannot be read: {reason}") from error
    try:
        found = msgspec.toml.decode(text)
        check_tables(found, Environment)
        environment = msgspec.convert(found, Environment)
        names = [entry.name for entry in environment.boards]
        if not names:
            raise ValueError("there is no board, expected at least one [[boards]]")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"there are two boards {twice!r}")
        boards = tuple(_checked(entry, path.parent, environment.fleet) for entry in environment.boards)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadInput(f"{path} is not a valid environment: {plain(str(error))}") from error
    return msgspec.structs.replace(environment, boards=boards)


def local_board() -> BoardEntry:
    """This machine."""
    return BoardEntry(
        name=LOCAL,
        transport="local",
        work="/var/tmp/edgeseg-hil",
        command=(sys.executable, "-m", "edgeseg.cli"),
        python=sys.executable,
    )


def fingerprint(host_key: str) -> str:
    """Of a public host key, as ssh shows it: SHA256:... Raises ValueError where it is no such key."""
    parts = host_key.split()
    try:
        if len(parts) < 2:
            raise ValueError
        blob = base64.b64decode(parts[1], validate=True)
        length = int.from_bytes(blob[:4], "big")
        if blob[4 : 4 + length].decode("ascii") != parts[0]:
            raise ValueError
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise ValueError(
            "expected a line as in 'ssh-ed25519 AAAA...' (ssh-keyscan prints it; check it on the board)"
        ) from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _checked(entry: BoardEntry, folder: Path, fleet: Fleet) -> BoardEntry:
    where = f"boards.{entry.name}"
    if not _NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} cannot name a board, expected letters, digits, dots and hyphens")
    if not entry.work.startswith("/") or not entry.lease.startswith("/"):
        raise ValueError(f"{where}.work and .lease must be whole paths on the board, beginning with /")
    if not entry.command:
        raise ValueError(f"{where}.command is empty, expected what runs edgeseg on the board")
    if entry.transport != "labgrid":
        _check_no_fleet(entry, where)
    if entry.transport == "local":
        return entry
    needed = ("host", "user", "key", "host_key") if entry.transport == "ssh" else ("key",)
    for name in needed:
        if not getattr(entry, name):
            raise ValueError(f"{where}.{name} is missing, a board over {entry.transport} needs it")
    if entry.host.startswith("-") or entry.user.startswith("-"):
        raise ValueError(f"{where}: a host or a user that begins with a hyphen would be an option of ssh")
    if entry.transport == "labgrid":
        entry = _of_fleet(entry, where, fleet)
    _check_host_keys({f"{where}.host_key": entry.host_key} if entry.host_key else {})
    key = folder / Path(entry.key).expanduser()
    trusted = tuple(str(folder / Path(path).expanduser()) for path in entry.trusted_keys)
    return msgspec.structs.replace(entry, key=str(key), trusted_keys=trusted)


def _check_no_fleet(entry: BoardEntry, where: str) -> None:
    for name in ("place", "filter", "coordinator", "host_keys"):
        if getattr(entry, name):
            raise ValueError(f'{where}.{name} is of a fleet, expected transport = "labgrid" with it')


def _of_fleet(entry: BoardEntry, where: str, fleet: Fleet) -> BoardEntry:
    """A board of a fleet, with what holds for all of them."""
    coordinator = entry.coordinator or fleet.coordinator
    host_keys = {**fleet.host_keys, **entry.host_keys}
    if coordinator and not _COORDINATOR.fullmatch(coordinator):
        raise ValueError(f"the coordinator {coordinator!r} is none, expected HOST:PORT")
    _check_host_keys({f"host_keys.{place}": key for place, key in host_keys.items()})
    place = entry.place
    if entry.filter:
        if place or entry.host or entry.host_key:
            raise ValueError(f"{where}: a filter is for any board that fits, leave out place, host and host_key")
        for tag, value in entry.filter.items():
            if not _TAG.fullmatch(tag) or not value:
                raise ValueError(f"{where}.filter: {tag} = {value!r} is no tag, expected as in board = 'intel-n100'")
        if not host_keys:
            raise ValueError(f"{where}: no host key is known, expected those of its places in [fleet.host_keys]")
    else:
        place = place or entry.name
        if not _NAME.fullmatch(place):
            raise ValueError(f"{where}.place: {place!r} cannot name a place, expected as a board's name")
        if not (entry.host_key or place in host_keys):
            raise ValueError(f"{where}.host_key is missing, and [fleet.host_keys] has none of {place}")
    pinned = {place: entry.host_key} if entry.host_key else host_keys
    return msgspec.structs.replace(entry, place=place, coordinator=coordinator, host_keys=pinned)


def _check_host_keys(keys: Mapping[str, str]) -> None:
    for where, key in keys.items():
        try:
            fingerprint(key)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
