from __future__ import annotations

import http.server
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput, NoSuchDevice
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.sources import open_source
from edgeseg.sources.camera import CvDevice, open_device

CloseWhileRead = Callable[[FrameSource], list[FrameItem]]


def jpeg(value: int, size: tuple[int, int] = (48, 64)) -> bytes:
    picture = np.full((*size, 3), 20, np.uint8)
    picture[:, :, 2] = value  # BGR: red
    return cv2.imencode(".jpg", picture)[1].tobytes()


class MjpegServer:
    """A camera on the network: multipart JPEG over HTTP, on a port that stays the same when it comes back."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.pictures = [jpeg(v) for v in (60, 120, 180, 240)]
        self.requests = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self._on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    def start(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                count = 0
                while outer._on.is_set():
                    data = outer.pictures[count % len(outer.pictures)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + data + b"\r\n")
                    except OSError:
                        return
                    count += 1
                    time.sleep(0.02)

            def log_message(self, *args: object) -> None:
                pass

        self._on.set()
        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._on.clear()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    found = MjpegServer()
    found.start()
    yield found
    found.stop()


def take(source: FrameSource, count: int) -> list[FrameItem]:
    return [next(source) for _ in range(count)]


def test_a_stream_over_http_gives_frames_with_their_capture_times(server: MjpegServer) -> None:
    with open_source(server.url) as source:
        assert (source.kind, source.live, source.length, source.path) == (SourceKind.CAMERA, True, None, None)
        items = take(source, 6)
        now_s = time.monotonic()
    assert items[0].frame.shape == (48, 64, 3)
    red, green, _ = items[0].frame.reshape(-1, 3).mean(0)
    assert red > green + 20
    times = [item.captured_s for item in items]
    assert all(t is not None for t in times)
    assert times == sorted(times)  # type: ignore[type-var]
    assert now_s - 2 < times[-1] <= now_s  # type: ignore[operator]
    assert len({item.name for item in items}) == 6


def test_a_camera_that_goes_away_and_comes_back_is_reopened(
    server: MjpegServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "edgeseg.sources"), open_source(server.url) as source:
        first = take(source, 3)
        server.stop()
        threading.Timer(0.5, server.start).start()
        while source.lost == 0:
            last = next(source)
        last = next(source)
        assert source.lost == 1
        assert last.index > first[-1].index
    assert "went away after" in caplog.text
    assert "is back" in caplog.text


def test_a_camera_that_does_not_come_back_ends_with_one_line(server: MjpegServer) -> None:
    with open_source(server.url, patience_s=0.3) as source:
        take(source, 3)
        server.stop()
        with pytest.raises(
            BadInput, match=r"video\.mjpg went away after \d+ frames and did not come back within 0\.3 s"
        ):
            for _ in source:
                pass
        assert list(source) == []


def test_a_reader_that_is_late_gets_the_newest_frame(server: MjpegServer) -> None:
    with open_source(server.url) as source:
        first = next(source)
        time.sleep(0.6)
        second = next(source)
        assert second.captured_s is not None
        assert time.monotonic() - second.captured_s < 0.4
        assert source.skipped > 3
        assert second.index == first.index + 1 + source.skipped


def test_damaged_pictures_are_counted_and_the_stream_goes_on(server: MjpegServer) -> None:
    sound = server.pictures[0]
    server.pictures = [sound, sound, sound, b"\xff\xd8" + bytes(len(sound) - 4) + b"\xff\xd9"]
    with open_source(server.url) as source:
        take(source, 12)
        assert source.damaged > 0
        assert source.lost == 0


def test_a_size_that_changes_when_the_camera_comes_back(server: MjpegServer) -> None:
    with open_source(server.url) as source:
        assert next(source).frame.shape == (48, 64, 3)
        server.stop()
        server.pictures = [jpeg(100, (32, 40))]
        time.sleep(0.2)  # until the last connection has ended
        server.start()
        while source.lost == 0:
            item = next(source)
        assert next(source).frame.shape == (32, 40, 3)
        assert item.frame.shape in ((48, 64, 3), (32, 40, 3))


def test_closing_ends_a_reader_that_waits(server: MjpegServer, close_while_read: CloseWhileRead) -> None:
    source = open_source(server.url, patience_s=60)
    take(source, 2)
    server.stop()
    time.sleep(0.1)
    close_while_read(source)
    source.close()


def test_a_clip_through_the_same_class_ends_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "c.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for value in range(30):
        writer.write(np.full((48, 64, 3), 4 * value, np.uint8))
    writer.release()
    with open_device(CvDevice(str(path), "clip")) as source:
        assert source.rate_hz == pytest.approx(25)
        items = list(source)
    assert items[-1].index == 29
    assert len(items) + source.skipped == 30
    assert source.lost == 0


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(NoSuchDevice, match=r"camera:7391 cannot be opened: /dev/video7391 does not exist"):
        open_source("camera:7391")
    with pytest.raises(NoSuchDevice, match=r"/dev/video7391 cannot be opened"):
        open_source("/dev/video7391?width=640&height=480&fps=30")
    with pytest.raises(NoSuchDevice, match=r"http://127\.0\.0\.1:9/x cannot be opened"):
        open_source("http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camera:", "is no camera"),
        ("camera:one", "is no camera"),
        ("camera:0?size=3", "size is no option here"),
        ("camera:0?width=0", "expected a number from 1"),
        ("camera:0?fps=nan", "fps is 'nan'"),
        ("camera:0?fps", "no options"),
        ("camera:0?fps=1&fps=2", "twice"),
        ("http://", "no stream"),
        ("http://host:99999/", "URL cannot be read"),
        ("rtsp://ho st/x", "no stream"),
    ],
)
def test_forms_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_source(spec)


def test_passwords_stay_out_of_messages_and_names() -> None:
    with pytest.raises(NoSuchDevice) as caught:
        open_source("http://user:secret@127.0.0.1:9/x?token=hidden")
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_comes_by_http_opens_no_file(tmp_path: Path) -> None:
    # A playlist, which FFmpeg follows: a server must not make it read files of this machine.
    clip = tmp_path / "private.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    served = tmp_path / "served"
    served.mkdir()
    (served / "public.avi").write_bytes(clip.read_bytes())
    entries = {"sound": "public.avi", "a": f"file://{clip}", "b": str(clip), "c": f"concat:{clip}|{clip}"}
    for name, entry in entries.items():
        (served / f"{name}.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{entry}\n#EXT-X-ENDLIST\n")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=os.fspath(served))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{httpd.server_port}"
        with open_source(f"{address}/sound.m3u8", patience_s=0.1) as source:
            assert next(source).frame.shape == (48, 64, 3)
        for name in "abc":
            with pytest.raises((NoSuchDevice, BadInput)):
                next(open_source(f"{address}/{name}.m3u8", patience_s=0.1))
        httpd.shutdown()


def test_a_process_ends_cleanly_without_closing_its_camera(server: MjpegServer) -> None:
    code = f"from edgeseg.sources import open_source\ns = open_source({server.url!r})\nprint(next(s).frame.shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "(48, 64, 3)", "")
