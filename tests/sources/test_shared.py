from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import BadInput, NoSuchDevice
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.sources import open_source, ring
from edgeseg.sources.frame_ring import FrameRing

CloseWhileRead = Callable[[FrameSource], list[FrameItem]]

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.fixture
def name() -> Iterator[str]:
    found = f"edgeseg-test-{os.getpid()}-{time.monotonic_ns()}"
    yield found
    ring.file_of(found).unlink(missing_ok=True)


def test_frames_with_what_is_known_of_them(name: str) -> None:
    with FrameRing.create(name, width=8, height=8, channels=3) as producer:
        assert ring.file_of(name).stat().st_mode & 0o777 == 0o600
        with open_source(f"shm:{name}") as source:
            assert (source.kind, source.live, source.path) == (SourceKind.SHARED, True, None)
            earlier_s = time.monotonic() - 0.1
            producer.put(RAMP, pixel_size_mm=0.3, captured_s=earlier_s)
            first = next(source)
            colour = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)[:, ::-1]
            producer.put(colour)
            second = next(source)
    assert np.array_equal(first.frame, RAMP)
    assert (first.pixel_size_mm, second.pixel_size_mm) == (0.3, None)
    assert first.captured_s == pytest.approx(earlier_s, abs=1e-6)
    assert np.array_equal(second.frame, colour)
    assert [first.index, second.index] == [0, 1]


def test_the_newest_frame_wins_and_the_rest_is_counted(name: str) -> None:
    with FrameRing.create(name, width=4, height=3, slots=3) as producer, open_source(f"shm:{name}") as source:
        producer.put(RAMP)
        assert next(source).index == 0
        for value in range(10):
            producer.put(np.full((3, 4), value, np.uint8))
        item = next(source)
        assert int(item.frame[0, 0]) == 9
        assert (source.skipped, item.index) == (9, 10)


def test_the_end_comes_after_the_last_frame(name: str) -> None:
    producer = FrameRing.create(name, width=4, height=3)
    with open_source(f"shm:{name}") as source:
        producer.put(RAMP)
        producer.close()
        producer.close()
        assert len(list(source)) == 1
    assert not ring.file_of(name).exists()


def test_a_frame_is_kept_when_its_slot_is_written_over(name: str) -> None:
    with FrameRing.create(name, width=4, height=3, slots=2) as producer, open_source(f"shm:{name}") as source:
        producer.put(RAMP)
        kept = next(source).frame
        for _ in range(4):
            producer.put(np.zeros((3, 4), np.uint8))
        assert np.array_equal(kept, RAMP)


PRODUCER = """
import sys, time
import numpy as np
from edgeseg.sources.frame_ring import FrameRing
name, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ring = FrameRing.create(name, width=320, height=240, slots=2)
print("up", flush=True)
for number in range(count):
    ring.put(np.full((240, 320), number % 251, np.uint8))
    time.sleep(pause)
ring.close()
"""


def start(name: str, count: int, pause_s: float = 0.0) -> subprocess.Popen[bytes]:
    found = subprocess.Popen([sys.executable, "-c", PRODUCER, name, str(count), str(pause_s)], stdout=subprocess.PIPE)
    assert found.stdout is not None
    assert found.stdout.readline() == b"up\n"
    return found


def test_torn_frames_are_never_seen(name: str) -> None:
    # Two slots and a producer that never waits: whoever copies without looking twice gets two frames in one.
    with start(name, 15_000) as producer, open_source(f"shm:{name}") as source:
        count = last = 0
        for item in source:
            count += 1
            assert item.frame.min() == item.frame.max()
            last = item.index
        assert producer.wait(60) == 0
    assert count > 100
    assert last + 1 == count + source.skipped


def test_a_producer_that_dies_and_one_that_takes_its_place(name: str) -> None:
    with start(name, 10_000, 0.01) as first, open_source(f"shm:{name}", patience_s=30) as source:
        next(source)
        first.send_signal(signal.SIGKILL)
        first.wait()
        second: list[subprocess.Popen[bytes]] = []
        threading.Timer(0.3, lambda: second.append(start(name, 250, 0.01))).start()
        for _ in source:
            pass
        assert source.lost == 1
        second[0].wait()


def test_a_producer_that_stays_dead(name: str) -> None:
    with start(name, 10_000, 0.01) as producer, open_source(f"shm:{name}", patience_s=0.3) as source:
        next(source)
        producer.kill()
        producer.wait()
        with pytest.raises(BadInput, match=r"went away after \d+ frames and did not come back within 0\.3 s"):
            list(source)
        with pytest.raises(NoSuchDevice, match="producer has ended without closing"):
            open_source(f"shm:{name}")


def test_a_producer_killed_while_it_writes_is_noticed_without_a_busy_loop(name: str) -> None:
    with FrameRing.create(name, width=4, height=3, slots=2) as producer, open_source(f"shm:{name}") as source:
        producer.put(RAMP)
        next(source)
        producer.put(RAMP)
        # As if it had been stopped in the middle of the slot of the newest frame, wrapped around.
        with ring.file_of(name).open("r+b") as stream:
            stream.seek(ring.HEADER_BYTES + ring.slot_bytes(12))
            stream.write((7).to_bytes(8, "little"))
        threading.Timer(0.5, source.close).start()
        before_s = time.process_time()
        assert next(source, None) is None
        assert time.process_time() - before_s < 0.2


def test_one_producer_a_ring(name: str) -> None:
    with FrameRing.create(name, width=4, height=3), pytest.raises(BadInput, match="has a producer already"):
        FrameRing.create(name, width=4, height=3)
    path = ring.file_of(name)
    path.write_bytes(b"somebody else's file")
    with pytest.raises(BadInput, match="no ring of this user"):
        FrameRing.create(name, width=4, height=3)
    assert path.read_bytes() == b"somebody else's file"


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(9, np.uint8), np.zeros((9, 9), np.uint8)],
)
def test_frames_that_do_not_go_in(name: str, bad: np.ndarray) -> None:
    with FrameRing.create(name, width=4, height=4) as producer, pytest.raises(BadInput, match="the frame"):
        producer.put(bad)


def test_rings_that_cannot_be_made(name: str) -> None:
    with pytest.raises(BadInput, match="60000x60000 pixels"):
        FrameRing.create(name, width=60000, height=60000)
    with pytest.raises(BadInput, match="2 to 64 slots"):
        FrameRing.create(name, width=4, height=4, slots=1)
    with pytest.raises(BadInput, match="no name of shared memory"):
        FrameRing.create("../etc/x", width=4, height=4)


def header(
    slots: int = 2, slot_bytes: int = 128, newest: int = 0, magic: bytes = ring.MAGIC, version: int = 1
) -> bytes:
    return ring.HEADER.pack(magic, version, slots, slot_bytes, newest, 0, 0).ljust(ring.HEADER_BYTES, b"\0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header() + bytes(255), "do not fit"),
        (header(slots=64) + bytes(256), "do not fit"),
        (header(slots=1 << 31) + bytes(256), "out of range"),
        (header(slot_bytes=1 << 62) + bytes(256), "out of range"),
        (header(slot_bytes=100) + bytes(256), "out of range"),
        (header(magic=b"NOTARING") + bytes(256), "no ring of frames"),
        (header(version=2) + bytes(256), "another version"),
        (header()[:30], "not finished"),
        (bytes(400), "not finished"),
    ],
)
def test_a_hostile_header_is_refused(name: str, content: bytes, message: str) -> None:
    path = ring.file_of(name)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises((BadInput, NoSuchDevice), match=message):
        open_source(f"shm:{name}")


def test_memory_that_others_may_write_is_refused(name: str) -> None:
    path = ring.file_of(name)
    path.write_bytes(header() + bytes(256))
    path.chmod(0o666)
    with pytest.raises(BadInput, match="may be written by others"):
        open_source(f"shm:{name}")


def test_a_link_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(header() + bytes(256))
    ring.file_of(name).symlink_to(tmp_path / "x")
    with pytest.raises(BadInput, match=f"shm:{name} cannot be opened"):
        open_source(f"shm:{name}")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(8, 60000, "more than fits into its slot"), (16, 2, "more than fits"), (12, 0, "more than fits")],
)
def test_a_slot_that_claims_more_than_it_has(name: str, at: int, value: int, message: str) -> None:
    with FrameRing.create(name, width=4, height=3) as producer, open_source(f"shm:{name}") as source:
        producer.put(RAMP)
        with ring.file_of(name).open("r+b") as stream:
            stream.seek(ring.HEADER_BYTES + at)
            stream.write(value.to_bytes(4, "little"))
        with pytest.raises(BadInput, match=message):
            next(source)


def test_memory_that_is_cut_off_ends_the_source_not_the_process(name: str) -> None:
    with FrameRing.create(name, width=64, height=64) as producer:
        source = open_source(f"shm:{name}", patience_s=0.2)
        producer.put(np.zeros((64, 64), np.uint8))
        next(source)
        os.truncate(ring.file_of(name), ring.HEADER_BYTES)
        with ring.file_of(name).open("r+b") as stream:
            stream.seek(ring.NEWEST_AT)
            stream.write((9).to_bytes(8, "little"))
        with pytest.raises(BadInput, match=r"cut off|do not fit"):
            list(source)
        source.close()
        os.truncate(ring.file_of(name), 1 << 20)


def test_closing_ends_a_reader_that_waits(name: str, close_while_read: CloseWhileRead) -> None:
    with FrameRing.create(name, width=4, height=3):
        assert close_while_read(open_source(f"shm:{name}")) == []


def test_waiting_costs_next_to_nothing(name: str) -> None:
    with FrameRing.create(name, width=4, height=3), open_source(f"shm:{name}") as source:
        threading.Timer(1.0, source.close).start()
        before_s = time.process_time()
        assert next(source, None) is None
        assert time.process_time() - before_s < 0.2


def test_readers_and_producers_leave_no_descriptors(name: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with FrameRing.create(name, width=4, height=3) as producer, open_source(f"shm:{name}") as source:
            producer.put(RAMP)
            next(source)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_ring_that_is_not_there(name: str) -> None:
    with pytest.raises(NoSuchDevice, match="no such ring, start its producer first"):
        open_source(f"shm:{name}")
    with contextlib.suppress(FileNotFoundError):
        ring.file_of(name).unlink()
