from __future__ import annotations

import contextlib
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.frames import SourceKind, open_frames, read_image, safe_name

GRAY = np.arange(256, dtype=np.uint8).reshape(8, 32)


def encode(path: Path, bgr: np.ndarray, *options: int) -> Path:
    assert cv2.imwrite(str(path), bgr, list(options))
    return path


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(k, d) for k, d in chunks)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_gray_stays_gray_and_colour_is_rgb(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(read_image(encode(tmp_path / f"g.{suffix}", GRAY)), GRAY)
    rgb = np.dstack([GRAY, GRAY // 2, GRAY // 3])
    found = read_image(encode(tmp_path / f"c.{suffix}", rgb[:, :, ::-1]))
    assert np.array_equal(found, rgb)
    assert found.flags.c_contiguous


def test_gray_jpeg_is_gray_and_gray_stored_as_colour_stays_colour(tmp_path: Path) -> None:
    assert read_image(encode(tmp_path / "g.jpg", GRAY)).shape == GRAY.shape
    frame = read_image(encode(tmp_path / "c.png", np.dstack([GRAY] * 3)))
    assert np.array_equal(frame, np.dstack([GRAY] * 3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_keeps_the_upper_byte(tmp_path: Path, suffix: str) -> None:
    wide = GRAY.astype(np.uint16) << 8 | 0x80
    frame = read_image(encode(tmp_path / f"w.{suffix}", wide))
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, GRAY)
    rgb = np.dstack([wide, wide // 2, wide // 3])
    assert np.array_equal(read_image(encode(tmp_path / f"c.{suffix}", rgb[:, :, ::-1])), (rgb >> 8).astype(np.uint8))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    rgba = np.dstack([GRAY, GRAY // 2, GRAY // 3, np.zeros_like(GRAY)])
    frame = read_image(encode(tmp_path / "a.png", rgba[:, :, [2, 1, 0, 3]]))
    assert np.array_equal(frame, rgba[:, :, :3])


def test_gray_with_alpha_is_gray(tmp_path: Path) -> None:
    (tmp_path / "la.png").write_bytes(png(2, 1, 8, 4, b"\0\x10\xff\x20\x00"))
    assert read_image(tmp_path / "la.png").tolist() == [[0x10, 0x20]]


def test_one_bit_gray_is_0_and_255(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(png(8, 1, 1, 0, b"\0\xa0"))
    assert read_image(tmp_path / "m.png").tolist() == [[255, 0, 255, 0, 0, 0, 0, 0]]


def test_palette_becomes_its_colours(tmp_path: Path) -> None:
    palette = (b"PLTE", bytes([1, 2, 3, 200, 100, 50]))
    (tmp_path / "p.png").write_bytes(png(2, 1, 8, 3, b"\0\x01\x00", palette))
    assert read_image(tmp_path / "p.png").tolist() == [[[200, 100, 50], [1, 2, 3]]]


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    data = encode(tmp_path / "e.jpg", GRAY).read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    (tmp_path / "e.jpg").write_bytes(turned)
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_GRAYSCALE).shape == GRAY.shape[::-1]
    assert read_image(tmp_path / "e.jpg").shape == GRAY.shape


def test_big_picture(tmp_path: Path) -> None:
    big = np.zeros((6000, 8000), np.uint8)
    big[5999, 7999] = 7
    frame = read_image(encode(tmp_path / "big.png", big))
    assert frame.shape == (6000, 8000)
    assert frame[5999, 7999] == 7


def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60000, 60000, 8, 0, bytes(1 << 20)))
    (tmp_path / "bomb.bmp").write_bytes(b"BM" + bytes(12) + struct.pack("<Iii", 40, 60000, -60000) + bytes(60))
    jpeg = bytearray(encode(tmp_path / "bomb.jpg", GRAY).read_bytes())
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60000, 60000)
    (tmp_path / "bomb.jpg").write_bytes(jpeg)
    tiff = struct.pack("<2sHIH", b"II", 42, 8, 2)
    tiff += struct.pack("<HHIIHHII", 256, 4, 1, 60000, 257, 4, 1, 60000)
    (tmp_path / "bomb.tif").write_bytes(tiff)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(BadInput, match=rf"{path.name} has 60000x60000 pixels"):
            read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB; decoded, one has 3.6 GB


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_truncated_images_are_refused_quietly(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    path = encode(tmp_path / f"cut.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    code = f"from edgeseg.frames import read_image\ntry: read_image({str(path)!r})\nexcept ValueError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert done.stderr == ""


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path: Path) -> None:
    path = encode(tmp_path / "f.png", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match="wrong checksum"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0"])
def test_what_is_no_image_names_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.png"):
        read_image(path)


def test_missing_file_folder_and_float_samples(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.png cannot be read: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(BadInput, match="is not a file"):
        read_image(tmp_path)
    with pytest.raises(BadInput, match="float32 samples"):
        read_image(encode(tmp_path / "f.tif", GRAY.astype(np.float32)))


def test_every_corruption_ends_in_a_frame_or_bad_input(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "fuzz"
    for suffix in ("png", "jpg", "bmp", "tif"):
        sound = cv2.imencode(f".{suffix}", GRAY)[1].tobytes()
        for _ in range(60):
            data = bytearray(sound)
            for _ in range(rng.integers(1, 5)):
                data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data)
            with contextlib.suppress(BadInput):
                assert read_image(path).dtype == np.uint8


def test_one_image_is_a_source_of_one(tmp_path: Path) -> None:
    with open_frames(encode(tmp_path / "one.png", GRAY)) as source:
        assert (source.kind, source.length, source.rate_hz) == (SourceKind.IMAGE, 1, None)
        (item,) = source
    assert (item.name, item.index, item.time_s, item.pixel_size_mm) == ("one", 0, None, None)
    assert np.array_equal(item.frame, GRAY)


def test_a_folder_comes_in_natural_order_and_one_at_a_time(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        encode(tmp_path / f"f{number}.png", np.full((4, 4), number, np.uint8))
    encode(tmp_path / "f2.bmp", np.full((4, 4), 20, np.uint8))
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._f1.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "f11.png").write_bytes(b"broken, but the last one")
    source = open_frames(tmp_path)
    assert source.length == 5
    items = [next(source) for _ in range(4)]
    assert [int(i.frame[0, 0]) for i in items] == [1, 20, 2, 10]
    assert [i.name for i in items] == ["f1", "f2-000001", "f2-000002", "f10"]
    with pytest.raises(BadInput, match=r"f11\.png"):
        next(source)


def test_names_stay_unique_whatever_the_files_are_called(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "A.jpg", "a-000001.png"):
        encode(tmp_path / name, GRAY)
    names = [i.name for i in open_frames(tmp_path)]
    assert len({n.casefold() for n in names}) == 4


def test_a_frames_folder_gives_its_images_and_pixel_sizes(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            encode(tmp_path / folder / f"{name}.png", GRAY)
    (tmp_path / "index.csv").write_text("file,pixel_size_mm\na.png,0.25\nb.png,\n")
    with open_frames(tmp_path) as source:
        assert [(i.name, i.pixel_size_mm) for i in source] == [("a", 0.25), ("b", None)]
    # A spreadsheet writes a byte order mark; rows of files that are not there are nobody's concern.
    (tmp_path / "index.csv").write_text("file,pixel_size_mm\r\nb.png,0.5\r\ngone.png,1\r\n", encoding="utf-8-sig")
    with open_frames(tmp_path) as source:
        assert [i.pixel_size_mm for i in source] == [None, 0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,pixel_size_mm\na.png,-1\n", "pixel_size_mm of a.png is '-1', expected a number above 0"),
        (b"file,pixel_size_mm\na.png,nan\n", "pixel_size_mm of a.png is 'nan'"),
        (b"file;pixel_size_mm\na.png;0.25\n", "has no column 'file'"),
        (b"file,pixel_size_mm\na.png,\xff\n", "is not a CSV file in UTF-8"),
    ],
)
def test_pixel_sizes_that_are_none_are_refused_before_a_frame_is_read(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "images").mkdir()
    encode(tmp_path / "images" / "a.png", GRAY)
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        open_frames(tmp_path)


def test_a_folder_that_one_stands_in_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exam"
    folder.mkdir()
    encode(folder / "a.png", GRAY)
    monkeypatch.chdir(folder)
    assert [open_frames(path).name for path in (".", "../exam", folder)] == ["exam"] * 3


def test_an_empty_folder_and_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no images"):
        open_frames(tmp_path)
    playlist = b"#EXTM3U\nhttp://localhost/x.ts\n"
    for name, content in (("x.mp4", b"hello"), ("list.m3u8", playlist), ("x.dcm", bytes(200))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=f"{name} is of an unknown kind"):
            open_frames(tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(BadInput, match="is empty"):
        open_frames(tmp_path / "empty.mp4")


@pytest.mark.parametrize(
    ("text", "name"),
    [("../../etc/x", "_.._etc_x"), ("..", "frame"), ("a b\n=c", "a_b__c"), ("ünder", "ünder"), ("x" * 300, "x" * 120)],
)
def test_safe_names_stay_in_their_folder(text: str, name: str) -> None:
    assert safe_name(text) == name


def write_clip(path: Path, count: int = 10, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 12.5, (64, 48))
    for index in range(count):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:, :, 2] = 200  # BGR: red
        frame[:, : 4 + index] = 0
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mp4", "mp4v")])
def test_clip(tmp_path: Path, suffix: str, codec: str) -> None:
    with open_frames(write_clip(tmp_path / f"c.{suffix}", codec=codec)) as source:
        assert (source.kind, source.length, source.rate_hz) == (SourceKind.CLIP, 10, pytest.approx(12.5))
        items = list(source)
    assert [i.name for i in items] == [f"c-{n:06d}" for n in range(10)]
    assert [i.time_s for i in items] == pytest.approx([n / 12.5 for n in range(10)], abs=1e-3)
    assert items[0].frame.shape == (48, 64, 3)
    red, green, blue = items[0].frame[:, 40:].reshape(-1, 3).mean(0)
    assert red > 180
    assert max(green, blue) < 20


def test_a_clip_is_never_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (1280, 960))
    for _ in range(120):
        writer.write(np.zeros((960, 1280, 3), np.uint8))
    writer.release()
    with open_frames(path) as source:
        next(source)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(1 for _ in source) == 119
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB; all frames have 440 MB


def test_a_truncated_clip_gives_what_is_there_and_then_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "cut.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found: list[int] = []
    source = open_frames(path)
    with pytest.raises(BadInput, match=r"cut\.avi ends after \d+ of 40 frames"):
        found.extend(item.index for item in source)
    assert 10 < len(found) < 30


def payloads(data: bytes) -> list[tuple[int, int]]:
    """Start and length of every picture in an MJPG AVI."""
    found, at = [], data.index(b"movi")
    while (at := data.find(b"00dc", at + 1)) > 0:
        found.append((at + 8, struct.unpack_from("<I", data, at + 4)[0]))
    return [f for f in found if data[f[0] : f[0] + 2] == b"\xff\xd8"]


def test_a_damaged_frame_of_a_clip_is_counted_and_the_rest_comes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "d.avi", 30)
    data = bytearray(path.read_bytes())
    found = payloads(bytes(data))
    for start, length in (found[n] for n in (10, 11, 20)):
        data[start : start + length] = bytes(length)
    path.write_bytes(data)
    with open_frames(path) as source:
        items = list(source)
        assert source.damaged == 3
    assert [i.index for i in items] == [n for n in range(30) if n not in (10, 11, 20)]
    assert items[10].name == "d-000012"
    assert items[10].time_s == pytest.approx(12 / 12.5, abs=1e-3)


def test_a_damaged_stretch_of_a_real_h264_clip_is_counted(tmp_path: Path) -> None:
    real = Path(__file__).parents[1] / "../shared/data/pocus_cine_itkpocus/clarius-ocular-short.mp4"
    if not real.is_file():
        pytest.skip("the real clips are not beside the repository")
    data = bytearray(real.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 30_000] = b"\xff" * 30_000
    (tmp_path / "h.mp4").write_bytes(data)
    with open_frames(tmp_path / "h.mp4") as source:
        items = list(source)
        assert source.damaged > 0
        assert len(items) + source.damaged == 50
    assert items[-1].index == 49


def test_a_clip_that_ends_in_damage_ends_badly(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "e.avi", 30)
    data = bytearray(path.read_bytes())
    for start, length in payloads(bytes(data))[20:]:
        data[start : start + length] = bytes(length)
    path.write_bytes(data)
    found: list[int] = []
    with open_frames(path) as source, pytest.raises(BadInput, match=r"e\.avi ends after 20 of 30 frames"):
        found.extend(item.index for item in source)
    assert found == list(range(20))
    assert source.damaged == 0


def test_sizes_may_change_within_a_folder(tmp_path: Path) -> None:
    encode(tmp_path / "1.png", GRAY)
    encode(tmp_path / "2.png", np.dstack([GRAY[:4]] * 3))
    with open_frames(tmp_path) as source:
        assert [i.frame.shape for i in source] == [(8, 32), (4, 32, 3)]


def test_a_file_can_be_read_again_from_its_start(tmp_path: Path) -> None:
    encode(tmp_path / "1.png", GRAY)
    for path in (write_clip(tmp_path / "c.avi"), tmp_path / "1.png", tmp_path):
        with open_frames(path) as source, source.reopen() as again:
            assert [i.name for i in source] == [i.name for i in again]


def test_a_clip_without_its_index_or_without_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", codec="mp4v")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"c\.mp4 cannot be opened as a clip"):
        open_frames(path)
    whole = write_clip(tmp_path / "n.avi").read_bytes()
    movie = whole.index(b"movi")
    (tmp_path / "n.avi").write_bytes(whole[: movie + 4] + b"\xff" * (len(whole) - movie - 4))
    with pytest.raises(BadInput, match=r"n\.avi"):
        list(open_frames(tmp_path / "n.avi"))


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    source = open_frames(write_clip(tmp_path / "c.avi"))
    next(source)
    source.close()
    source.close()
    assert list(source) == []


def test_opening_frames_needs_no_pydicom() -> None:
    code = "import sys, edgeseg.frames; print('pydicom' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
