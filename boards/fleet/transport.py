"""A board of a fleet: labgrid lends its place and says where it is; the rest is ssh to a board with a pinned key."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgeseg.boards.fleet.fleet import Fleet, fleet_of
from edgeseg.boards.fleet.names import coordinator_address
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.ssh_transport import SshTransport
from edgeseg.boards.hil.transport import Completed, Holder
from edgeseg.errors import BoardUnreachable, EdgesegError

# A board that does not answer may be starting again: its place is not for others yet.
_KEEP_S = 60.0


class FleetTransport:
    """The place of a board, and ssh to the board, as one.

    Attributes:
        name, where, boot_id: as of `Transport`.
    """

    def __init__(self, entry: BoardEntry) -> None:
        self.name = entry.name
        self.where = f"the fleet of {coordinator_address(entry.coordinator)}"
        self.boot_id = ""
        self._entry = entry
        self._fleet: Fleet | None = None
        self._ssh: SshTransport | None = None
        self._unreachable = False
        self._lost: EdgesegError | None = None
        self._lock = threading.Lock()

    def open(self, holder: Holder) -> None:
        """Take the place, connect and take the board; raises as `Fleet.take` and as `Transport.open`."""
        entry = self._entry
        self._fleet = fleet_of(coordinator_address(entry.coordinator), holder.run)
        found = self._fleet.take(self.name, entry.place, entry.filter, list(entry.host_keys), self._lose)
        ssh = SshTransport(
            msgspec.structs.replace(
                entry, host=found.host, port=found.port, user=found.user, host_key=entry.host_keys[found.place]
            )
        )
        self._ssh = ssh
        self.where = f"{ssh.where}, place {found.place} of exporter {found.exporter}"
        with self._lock, self._while_held():
            ssh.open(holder)
        self.boot_id = ssh.boot_id

    def run(self, command: Sequence[str], timeout_s: float, fetch: Sequence[str] = ()) -> Completed:
        """As `Transport.run`; raises ExporterGone, CoordinatorUnreachable or BoardBusy where the place was lost."""
        with self._while_held() as ssh:
            return ssh.run(command, timeout_s, fetch)

    def put(self, source: Path, remote: str, timeout_s: float) -> None:
        """As `Transport.put`; raises as `run`."""
        with self._while_held() as ssh:
            ssh.put(source, remote, timeout_s)

    def get(self, remote: str, target: Path, timeout_s: float) -> None:
        """As `Transport.get`; raises as `run`."""
        with self._while_held() as ssh:
            ssh.get(remote, target, timeout_s)

    def close(self) -> None:
        """Give the board and its place back; a place whose board does not answer is kept for a minute."""
        self._close_ssh()
        if self._fleet:
            self._fleet.give(self.name, _KEEP_S if self._unreachable else 0.0)
            self._fleet = None

    @contextmanager
    def _while_held(self) -> Iterator[SshTransport]:
        """What happens without the place fails for that reason."""
        self._raise_lost()
        if self._ssh is None:
            raise BoardUnreachable(f"{self.name}: not connected")
        try:
            yield self._ssh
        except BoardUnreachable:
            self._raise_lost()
            self._unreachable = True
            raise

    def _raise_lost(self) -> None:
        if self._lost:
            self._unreachable = isinstance(self._lost, BoardUnreachable)
            raise self._lost

    def _lose(self, error: EdgesegError) -> None:
        self._lost = error
        # Closing takes seconds where a board does not answer, and others may be lost in this moment too.
        threading.Thread(target=self._close_ssh, daemon=True).start()

    def _close_ssh(self) -> None:
        with self._lock:
            if self._ssh:
                self._ssh.close()
