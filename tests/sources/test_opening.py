from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgeseg
from edgeseg.errors import BadInput
from edgeseg.frame_source import SourceKind
from edgeseg.sources import open_source

GRAY = np.arange(256, dtype=np.uint8).reshape(8, 32)


def picture(path: Path) -> Path:
    assert cv2.imwrite(str(path), GRAY)
    return path


def test_a_path_as_text_or_as_a_path(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    for spec in (path, str(path)):
        with edgeseg.open_source(spec) as source:
            assert (source.kind, source.path, source.name, source.live) == (SourceKind.IMAGE, path, "a.png", False)
            assert [i.captured_s for i in source] == [None]


@pytest.mark.parametrize(
    "spec", ["nothing.mp4", "/nowhere/x.png", "ftp://host/x.mp4", "file:///etc/passwd", "concat://a|b", "udp://@:1234"]
)
def test_what_is_none_of_the_forms_names_them_all(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        open_source(spec)
    message = str(caught.value)
    for form in ("camera:0", "/dev/video0", "http://", "rtsp://", "pipe:-?", "shm:NAME", "igtl://HOST:PORT", "a path"):
        assert form in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["camera:0", "shm:x", "pipe:-", "http:", "concat:a.avi"])
def test_a_path_is_never_anything_but_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "x.png").rename(tmp_path / name)
    for spec in (Path(name), f"./{name}"):
        with open_source(spec) as source:
            assert source.kind is SourceKind.IMAGE
            assert np.array_equal(next(source).frame, GRAY)


def test_a_clip_whose_name_is_a_protocol_of_ffmpeg_is_read_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("c.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    for name in ("concat:c.avi|c.avi", "subfile,,start,0,end,9,,:c.avi", "http:c.avi"):
        Path(name).write_bytes(Path("c.avi").read_bytes())
        with open_source(Path(name)) as source:
            assert len(list(source)) == 3


def test_closing_a_file_while_another_thread_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "c.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for _ in range(200):
        writer.write(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))
    writer.release()
    for _ in range(10):
        source = open_source(path)
        failures: list[BaseException] = []

        def read(source: object = source, failures: list[BaseException] = failures) -> None:
            try:
                for _ in source:  # type: ignore[attr-defined]
                    pass
            except BaseException as error:
                failures.append(error)

        reader = threading.Thread(target=read)
        next(source)
        reader.start()
        source.close()
        reader.join(5)
        assert not reader.is_alive()
        assert failures == []


def test_opening_sources_imports_no_extra() -> None:
    code = "import sys, edgeseg.sources; print([m for m in ('pyigtl', 'pydicom', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
