from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyigtl
import pytest

from edgeseg.errors import BadInput, MissingDependency, NoSuchDevice
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.sources import open_source

CloseWhileRead = Callable[[FrameSource], list[FrameItem]]

RAMP = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Probe:
    """pyigtl's own server, sending an image every 20 ms."""

    def __init__(self, port: int, make: Callable[[int], list[pyigtl.MessageBase]]) -> None:
        kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._server = pyigtl.OpenIGTLinkServer(port=port)
        for number, handler in kept.items():  # it takes the process's signals for itself
            signal.signal(number, handler)
        self._stopped = threading.Event()
        self._make = make
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        count = 0
        while not self._stopped.wait(0.02):
            if self._server.is_connected():
                for message in self._make(count):
                    self._server.send_message(message, wait=False)
                count += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._server.stop()


def image(pixels: np.ndarray = RAMP, spacing: float | None = 0.2, name: str = "Probe") -> pyigtl.ImageMessage:
    matrix = None if spacing is None else np.diag([spacing, spacing, 1, 1])
    return pyigtl.ImageMessage(pixels, ijk_to_world_matrix=matrix, device_name=name)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    probes: list[Probe] = []

    def start(make: Callable[[int], list[pyigtl.MessageBase]], port: int | None = None) -> str:
        port = port or free_port()
        probes.append(Probe(port, make))
        return f"igtl://127.0.0.1:{port}"

    yield start
    for probe in probes:
        probe.stop()


def first(spec: str) -> FrameItem:
    with open_source(spec) as source:
        return next(source)


def test_images_with_their_spacing(serve: Callable[..., str]) -> None:
    with open_source(serve(lambda i: [image(RAMP + np.uint8(i % 100))])) as source:
        assert (source.kind, source.live, source.path) == (SourceKind.IGTL, True, None)
        items = [next(source) for _ in range(5)]
    assert all(np.array_equal(i.frame - i.frame[0, 0], RAMP[0]) for i in items)
    assert items[0].pixel_size_mm == pytest.approx(0.2)
    assert items[-1].captured_s > items[0].captured_s > time.monotonic() - 10  # type: ignore[operator]
    assert len({i.name for i in items}) == 5


@pytest.mark.parametrize(
    ("pixels", "shape", "corner"),
    [
        (np.full((1, 3, 4, 3), (200, 50, 0), np.uint8), (3, 4, 3), [200, 50, 0]),
        (np.full((1, 3, 4, 4), (200, 50, 0, 9), np.uint8), (3, 4, 3), [200, 50, 0]),
        (np.full((1, 3, 4), 0x7FFF, np.uint16), (3, 4), 0x7F),
    ],
)
def test_colour_and_16_bit(
    serve: Callable[..., str], pixels: np.ndarray, shape: tuple[int, ...], corner: object
) -> None:
    frame = first(serve(lambda _: [image(pixels)])).frame
    assert frame.shape == shape
    assert frame.dtype == np.uint8
    assert frame[0, 0].tolist() == corner


def test_a_spacing_that_nobody_set_or_that_is_not_square(serve: Callable[..., str]) -> None:
    assert first(serve(lambda _: [image(spacing=None)])).pixel_size_mm is None
    oblong = pyigtl.ImageMessage(RAMP, ijk_to_world_matrix=np.diag([0.2, 0.3, 1, 1]), device_name="Probe")
    assert first(serve(lambda _: [oblong])).pixel_size_mm is None


def test_one_device_of_several_and_other_messages(serve: Callable[..., str]) -> None:
    def both(_: int) -> list[pyigtl.MessageBase]:
        tracker = pyigtl.TransformMessage(np.eye(4), device_name="Tracker")
        return [tracker, image(RAMP, name="A"), image(RAMP + np.uint8(100), name="B")]

    spec = serve(both)
    with open_source(f"{spec}/B") as source:
        assert {int(next(source).frame[0, 0]) for _ in range(5)} == {100}
    with open_source(spec) as source:
        assert len({int(next(source).frame[0, 0]) for _ in range(5)}) == 1


def test_a_size_that_changes(serve: Callable[..., str]) -> None:
    with open_source(serve(lambda i: [image(np.zeros((1, 4 + i % 2, 6), np.uint8))])) as source:
        assert {next(source).frame.shape for _ in range(8)} == {(4, 6), (5, 6)}


def serve_bytes(*parts: bytes, stay: bool = True) -> tuple[str, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                for part in parts:
                    connection.sendall(part)
                while stay and connection.recv(1):
                    pass

    threading.Thread(target=run, daemon=True).start()
    return f"igtl://127.0.0.1:{listener.getsockname()[1]}", listener


def test_a_server_that_goes_away_is_connected_to_again() -> None:
    # pyigtl's own client stays with the dead connection.
    spec, listener = serve_bytes(image().pack(), stay=False)
    with listener, open_source(spec) as source:
        items = [next(source) for _ in range(3)]
        assert source.lost >= 2
    assert [i.index for i in items] == sorted({i.index for i in items})


def test_a_server_that_stays_away() -> None:
    spec, listener = serve_bytes(image().pack(), stay=False)
    with open_source(spec, patience_s=0.3) as source:
        next(source)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with pytest.raises(BadInput, match=r"went away after \d+ frames and did not come back within 0\.3 s"):
            list(source)


def test_a_damaged_message_is_counted_and_the_stream_goes_on() -> None:
    sound = image().pack()
    body = bytearray(sound)
    struct.pack_into(">HHH", body, 58 + 6, 4, 300, 1)  # 300 rows: the pixels do not suffice
    spec, listener = serve_bytes(bytes(body), sound)
    with listener, open_source(spec) as source:
        assert np.array_equal(next(source).frame, RAMP[0])
        assert source.damaged == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (image().pack()[:42] + struct.pack(">Q", 1 << 40) + bytes(8), "announces a message of 1099511627776 bytes"),
        (b"\xff" * 58, "no OpenIGTLink message"),
        (image(np.zeros((5, 3, 4), np.uint8)).pack(), "images of 5 slices"),
        (image(np.zeros((1, 3, 4), np.float32)).pack(), "float32"),
        (image(np.zeros((1, 3, 4, 2), np.uint8)).pack(), "2 components"),
    ],
)
def test_a_hostile_or_unsuitable_server_is_refused(data: bytes, message: str) -> None:
    spec, listener = serve_bytes(data)
    with listener, open_source(spec) as source, pytest.raises(BadInput, match=message):
        next(source)


@pytest.mark.parametrize("part", [0, 30, 80])
def test_closing_ends_a_reader_that_waits(part: int, close_while_read: CloseWhileRead) -> None:
    spec, listener = serve_bytes(image().pack()[:part])
    assert close_while_read(open_source(spec)) == []
    listener.close()


def test_nobody_there_and_forms_that_are_wrong() -> None:
    with pytest.raises(NoSuchDevice, match=r"igtl://127\.0\.0\.1:\d+ cannot be reached: Connection refused"):
        open_source(f"igtl://127.0.0.1:{free_port()}")
    for spec in ("igtl://", "igtl://host:99999", "igtl://host:1/x?y=1"):
        with pytest.raises(BadInput, match="expected igtl://HOST:PORT"):
            open_source(spec)


def test_without_pyigtl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def absent(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "pyigtl":
            raise ModuleNotFoundError("No module named 'pyigtl'", name="pyigtl")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependency, match=r"pip install 'edgeseg\[igtl\]'"):
        open_source("igtl://127.0.0.1")
