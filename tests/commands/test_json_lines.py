from __future__ import annotations

import fcntl
import json
import os
import select

from edgeseg.commands.json_lines import JsonLines


def test_nothing_follows_a_line_that_the_reader_took_only_a_part_of() -> None:
    reader, writer = os.pipe()
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 * select.PIPE_BUF)
    with JsonLines(f"/dev/fd/{writer}") as lines:
        assert lines.write({"text": "short"}, 0.0)
        assert not lines.write({"text": "long" * room}, 0.01)
        first, _, torn = os.read(reader, 2 * room).partition(b"\n")
        assert json.loads(first) == {"text": "short"}
        assert torn.startswith(b'{"text":"longlong')
        assert not lines.write({"text": "next"}, 0.01)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_line_that_found_no_room_at_all_leaves_room_for_the_next() -> None:
    reader, writer = os.pipe()
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    os.write(writer, bytes(room))
    with JsonLines(f"/dev/fd/{writer}") as lines:
        assert not lines.write({"text": "no room"}, 0.01)
        os.read(reader, room)
        assert lines.write({"text": "room"}, 0.01)
    assert json.loads(os.read(reader, room)) == {"text": "room"}
    os.close(writer)
    os.close(reader)
