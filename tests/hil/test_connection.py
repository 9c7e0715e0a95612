"""What a connection adds to a transport."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.boards.hil.connection import Connection
from edgeseg.boards.hil.facts import read_facts
from edgeseg.boards.hil.station import Station
from edgeseg.boards.hil.transport import open_transport


def test_a_large_bundle_has_time_for_a_slow_connection(local, holder, tmp_path, monkeypatch):
    """60 s are 0.3 MB/s for a bundle of 18 MB: less than a cart on mobile data may have."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "weights").write_bytes(bytes(18_000_000))
    with Station(tmp_path / "record.jsonl") as station:
        connection = Connection(local, holder, station, opener=open_transport)
        connection.open()
        asked = []
        monkeypatch.setattr(connection._open, "put", lambda source, remote, timeout_s: asked.append(timeout_s))
        connection.put(bundle, "/x")
        connection.put(Path(__file__), "/x")
        connection.close()
    assert asked[0] > 360
    assert asked[1] == pytest.approx(60, abs=1)


def test_a_work_folder_that_this_user_cannot_reach_is_not_writable(monkeypatch):
    """Asking for a path in a folder that is closed to the user raises, unlike for one that is not there."""
    monkeypatch.setattr(Path, "exists", lambda path: _denied(path) if path.name == "edgeseg-closed" else True)
    assert not read_facts(Path("/home/edgeseg-closed")).work_writable
    assert read_facts(Path("/tmp")).work_writable


def _denied(path: Path) -> bool:
    raise PermissionError(13, "Permission denied", str(path))
