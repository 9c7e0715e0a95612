from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.sources import open_source
from edgeseg.sources.pipe import HEADER, frame_header

CloseWhileRead = Callable[[FrameSource], list[FrameItem]]

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)


def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def write(path: Path, *parts: bytes, pause_s: float = 0.0) -> threading.Thread:
    def run() -> None:
        with path.open("wb", buffering=0) as stream:
            for part in parts:
                stream.write(part)
                time.sleep(pause_s)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_bare_frames_through_a_fifo_in_small_pieces(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    data = RAMP.tobytes() + (RAMP + 100).tobytes()
    with open_source(f"pipe:{path}?width=4&height=3&pixel_size_mm=0.2&fps=30") as source:
        assert (source.kind, source.live, source.rate_hz) == (SourceKind.PIPE, True, 30)
        write(path, data[:5], data[5:20], data[20:], pause_s=0.02)
        items = list(source)
    assert [i.index for i in items] == [0, 1]
    assert np.array_equal(items[1].frame, RAMP + 100)
    assert items[0].pixel_size_mm == 0.2
    assert items[1].captured_s >= items[0].captured_s > time.monotonic() - 5  # type: ignore[operator]


def test_frames_with_headers_have_sizes_times_and_colours_of_their_own(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    colour = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    earlier_s = time.monotonic() - 0.5
    first = frame_header(RAMP, pixel_size_mm=0.25, captured_s=earlier_s) + RAMP.tobytes()
    with open_source(f"pipe:{path}") as source:
        write(path, first, frame_header(colour), colour.tobytes())
        items = list(source)
    assert np.array_equal(items[0].frame, RAMP)
    assert np.array_equal(items[1].frame, colour)
    assert items[0].captured_s == pytest.approx(earlier_s, abs=1e-6)
    assert (items[0].pixel_size_mm, items[1].pixel_size_mm) == (0.25, None)


def test_standard_input_and_an_inherited_descriptor() -> None:
    data = RAMP.tobytes() * 3
    code = "import sys; from edgeseg.sources import open_source; print(sum(1 for _ in open_source(sys.argv[1])))"
    run = [sys.executable, "-c", code]
    done = subprocess.run([*run, "pipe:-?width=4&height=3"], input=data, capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b"3"
    read, send = os.pipe()
    os.write(send, data)
    os.close(send)
    done = subprocess.run([*run, f"pipe:{read}?width=4&height=3"], pass_fds=[read], capture_output=True, check=True)
    os.close(read)
    assert done.stdout.strip() == b"3"


@pytest.mark.parametrize("headers", [False, True])
def test_a_partial_frame_is_never_shown(tmp_path: Path, headers: bool) -> None:
    path = fifo(tmp_path)
    frame = (frame_header(RAMP) if headers else b"") + RAMP.tobytes()
    found = []
    with open_source(f"pipe:{path}" + ("" if headers else "?width=4&height=3")) as source:
        write(path, frame, frame[:-3])
        with pytest.raises(BadInput, match=r"fifo ends within frame 1, after 9 of 12 bytes"):
            found.extend(source)
    assert len(found) == 1


def test_a_header_cut_off_or_wrong_or_of_a_monstrous_frame(tmp_path: Path) -> None:
    cases = {
        "cut": (frame_header(RAMP)[:10], "ends within frame 0, after 10 of 32"),
        "none": (b"P5 4 3 255\n" + bytes(100), "no header of a frame"),
        "two": (HEADER.pack(b"ESF1", 4, 3, 2, 0.0, 0), "no header of a frame"),
        "huge": (HEADER.pack(b"ESF1", 60000, 60000, 3, 0.0, 0), "60000x60000 pixels"),
        "empty": (HEADER.pack(b"ESF1", 0, 3, 1, 0.0, 0), "at least one pixel"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with open_source(f"pipe:{tmp_path / name}") as source, pytest.raises(BadInput, match=message):
            next(source)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pipe:", "cannot be opened: nothing"),
        ("pipe:/nowhere?width=4&height=3", "cannot be opened"),
        ("pipe:987", "Bad file descriptor"),
        ("pipe:-?width=4", "width and height together"),
        ("pipe:-?width=4&height=3&channels=2", "channels=1 or 3"),
        ("pipe:-?channels=3", "width and height together"),
        ("pipe:-?width=60000&height=60000", "pixels"),
        ("pipe:-?depth=16", "depth is no option"),
    ],
)
def test_forms_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_source(spec)


@pytest.mark.parametrize("with_writer", [False, True])
def test_closing_ends_a_reader_that_waits(tmp_path: Path, with_writer: bool, close_while_read: CloseWhileRead) -> None:
    path = fifo(tmp_path)
    source = open_source(f"pipe:{path}?width=4&height=3")
    writer = os.open(path, os.O_RDWR) if with_writer else None
    if writer is not None:
        os.write(writer, b"half")
    assert close_while_read(source) == []
    source.close()
    if writer is not None:
        os.close(writer)


def test_closing_frees_its_descriptors(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        open_source(f"pipe:{path}").close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
