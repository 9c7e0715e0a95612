"""What the processes of a fleet tell each other."""

from __future__ import annotations

import os
from dataclasses import dataclass

# What labgrid calls an address with a user.
SERVICE = "NetworkService"
# A resource that tells a client what labgrid itself does not: the version of the exporter.
EXPORTER_CLASS = "EdgesegExporter"
EXPORTER_GROUP = "edgeseg-exporter"
# The tag that places get with the profile of their board.
BOARD_TAG = "board"

_PORT = 20408
_HERE = f"127.0.0.1:{_PORT}"


@dataclass(frozen=True, slots=True)
class Service:
    """The sshd of the board at a place, as its exporter offers it.

    Attributes:
        place: its name.
        host, port, user: of the sshd.
        exporter: that offers it.
        labgrid: version of that exporter, "" where it does not tell.
        isolated: whether it wants to be the proxy to its boards.
    """

    place: str
    host: str
    port: int
    user: str
    exporter: str
    labgrid: str
    isolated: bool


def coordinator_address(asked: str = "") -> str:
    """HOST:PORT of labgrid's coordinator: what was asked for, else $LG_COORDINATOR, else this machine's."""
    address = asked or os.environ.get("LG_COORDINATOR") or _HERE
    host, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() and not host.endswith(":") else f"{address}:{_PORT}"
