"""Words that both ends of a fleet use."""

from __future__ import annotations

import os

# A resource that tells a client what labgrid itself does not: the version of the exporter.
EXPORTER_CLASS = "EdgesegExporter"
EXPORTER_GROUP = "edgeseg-exporter"
# The tag that places get with the profile of their board.
BOARD_TAG = "board"

_PORT = 20408
_HERE = f"127.0.0.1:{_PORT}"


def coordinator_address(asked: str = "") -> str:
    """HOST:PORT of labgrid's coordinator: what was asked for, else $LG_COORDINATOR, else this machine's."""
    address = asked or os.environ.get("LG_COORDINATOR") or _HERE
    host, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() and not host.endswith(":") else f"{address}:{_PORT}"
