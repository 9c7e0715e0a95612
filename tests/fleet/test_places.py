"""Places of a fleet: taken, given back and kept, whatever ends a runner."""

from __future__ import annotations

import time

import pytest

from edgeseg.boards.hil.transport import open_transport
from edgeseg.errors import BoardBusy

from ..hil.conftest import quick, wait_until
from .conftest import runner


@pytest.mark.hil
def test_a_place_is_held_as_long_as_its_transport_is_open(lab, make_board, tmp_path):
    board = make_board()
    lab.export(quick(board), name="basement")
    entry = lab.entry(quick(board))
    first = runner()
    transport = open_transport(entry, first)
    assert transport.where == f"root@{board.address}:22, place {board.name} of exporter basement"
    assert transport.run(["hostname"], 20).stdout.decode().strip() == board.name
    assert first.run in lab.held()[board.name]
    with pytest.raises(BoardBusy, match=rf"place {board.name} is held by run {first.run} \(") as caught:
        open_transport(entry, runner())
    assert caught.value.run == first.run
    transport.close()
    assert lab.held()[board.name] == ""
    second = open_transport(entry, runner())
    second.close()
    assert wait_until(lambda: not board.strays(), 5), board.strays()
