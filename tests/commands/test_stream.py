"""`edgeseg stream` as a shell sees it: real engines, short clips, signals, pipes that nobody reads."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.clips import Clip
from edgeseg.commands.stream_figures import StreamFigures
from edgeseg.commands.stream_output import DrawingThread
from edgeseg.frames import open_frames
from edgeseg.overlay import ClipWriter
from edgeseg.runtimes.stream_result import Freshness, StreamResult

HEIGHT, WIDTH, FRAMES, RATE = 96, 128, 30, 30
AMPLE = ("--deadline", 2000)  # the machine may be busy with other things
FAST = ("--link", "onnxruntime:int8", *AMPLE)
_CAPABILITIES = {"ipc_lock": 14, "sys_nice": 23}
_PR_CAPBSET_DROP = 24


def frame(index: int) -> np.ndarray:
    """A bright ellipse that moves with the index."""
    image = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    cv2.ellipse(image, (50 + index % 30, 48), (30, 22), 0, 0, 360, (170, 170, 170), -1)
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.avi"
    with ClipWriter(path, RATE) as writer:
        for index in range(FRAMES):
            writer.write(frame(index))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeseg.cli", "stream", *map(str, arguments)]


def edgeseg(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=120, **options)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell started us with &
        **options,
    )  # fmt: skip


def records(text: str) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The start, the results and the summary of JSON lines, which have to be in this order."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["kind"] for line in lines] == ["start", *["result"] * (len(lines) - 2), "summary"]
    return lines[0], lines[1:-1], lines[-1]


def one_line(errors: str) -> str:
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1, errors
    return errors


def test_a_clip_is_replayed_as_json_lines(bundle: Path, clip: Path) -> None:
    done = edgeseg(bundle, clip, *FAST, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    start, results, summary = records(done.stdout)
    assert start["schema"] == 1
    assert start["chain"] == ["onnx-int8 on onnxruntime cpu"]
    assert start["rate_hz"] == RATE
    assert start["deadline_ms"] == 2000
    assert start["real_time"] is None
    assert [r["index"] for r in results] == sorted(r["index"] for r in results)
    for result in results:
        assert result["freshness"] == "fresh"
        assert 0 < result["latency_ms"] == result["age_ms"]
        assert result["fault"] is None
        (found,) = result["measurements"]
        assert found["label"] == "foreground"
        assert found["area_mm2"] is None  # a clip does not say how large its pixels are
        assert found["circumference_mm"] is None
    assert summary["reason"] == "end"
    assert summary["error"] is None
    assert summary["captured"] == len(results) + summary["dropped"] + summary["unread"]
    assert summary["captured"] + summary["skipped"] >= FRAMES - 1
    assert summary["seconds"] > 0.8 * FRAMES / RATE  # at the clip's rate, not as fast as it goes
    assert summary["p50_ms"] <= summary["p99_ms"] <= summary["max_ms"]
    assert summary["switches"] == []


def test_measurements_in_mm_where_the_pixel_size_is_known(bundle: Path, frames: Path) -> None:
    done = edgeseg(bundle, frames, *FAST, "--lossless", "--frames", 3, "--json")
    _, results, summary = records(done.stdout)
    assert [r["index"] for r in results] == [0, 1, 2]
    for result in results:
        (found,) = result["measurements"]
        assert found["area_mm2"] == pytest.approx(0.25 * found["area_px"])
        assert 50 < found["circumference_mm"] < 150
    assert summary["reason"] == "frames"


def test_a_dicom_file_without_pixel_size_has_null_measurements(bundle: Path, tmp_path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = "1.2.3"
    found.Rows, found.Columns, found.NumberOfFrames, found.FrameTime = HEIGHT, WIDTH, 4, "20"
    found.SamplesPerPixel, found.PhotometricInterpretation, found.PixelRepresentation = 1, "MONOCHROME2", 0
    found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.PixelData = b"".join(frame(index)[..., 0].tobytes() for index in range(4))
    found["PixelData"].VR = "OB"
    found.save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    start, results, _ = records(edgeseg(bundle, tmp_path / "cine.dcm", *FAST, "--json").stdout)
    assert start["rate_hz"] == 50
    assert results
    for result in results:
        assert result["measurements"][0]["area_px"] > 0
        assert result["measurements"][0]["area_mm2"] is None
        assert result["measurements"][0]["circumference_mm"] is None


def test_the_percentiles_of_the_last_seconds_are_nearest_ranks() -> None:
    figures = StreamFigures(0.0)
    assert figures.recent_ms(0.0, 50) is None
    picture = np.zeros((4, 4), np.uint8)
    for index in range(1, 101):
        result = StreamResult(index, "f", picture, picture, Freshness.FRESH, index, index, False, "link", 0)
        figures.record(result, 0.01 * index)
    assert [figures.recent_ms(1.0, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert figures.recent_ms(5.5, 50) == 75  # the first half is too old


def test_for_people_without_a_terminal(bundle: Path, clip: Path) -> None:
    done = edgeseg(bundle, clip, *FAST)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "ended by the end of the source" in done.stdout
    assert re.search(r"latency ms: p50 [\d.]+ .* deadline 2000.00", done.stdout)
    assert re.search(r"captured \d+, fresh \d+, stale 0", done.stdout)


def test_seconds_end_a_replay_that_has_no_end(bundle: Path, clip: Path, tmp_path: Path) -> None:
    done = edgeseg(bundle, clip, *FAST, "--loop", "--fps", 60, "--seconds", 1.5, "--json", tmp_path / "lines")
    assert done.returncode == 0, done.stderr
    assert "ended by --seconds" in done.stdout  # the JSON is in a file, people read standard output
    _, results, summary = records((tmp_path / "lines").read_text())
    assert summary["reason"] == "seconds"
    assert max(r["index"] for r in results) >= FRAMES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_summary_and_a_whole_clip(
    bundle: Path, clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out.mp4"
    child = start(bundle, clip, *FAST, "--loop", "--json", "-o", output)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(20)]
    child.send_signal(number)
    rest, errors = child.communicate(timeout=30)
    assert (child.returncode, errors) == (0, "")
    _, results, summary = records("".join(lines) + rest)
    assert summary["reason"] == "interrupted"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with open_frames(output) as written:
        drawn = sum(1 for _ in written)
    assert drawn == summary["written"]
    assert drawn + summary["left_out"] == len(results)


def test_a_signal_ends_it_while_nobody_reads(bundle: Path, clip: Path) -> None:
    child = start(bundle, clip, *FAST, "--loop", "--fps", 300, "--json")
    _wait_until_blocked(child)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == 1
    assert child.stdout is not None
    assert child.stderr is not None
    for line in child.stdout.read().splitlines():
        json.loads(line)  # what there is, is whole
    assert "summary could not be written" in one_line(child.stderr.read())


def test_seconds_end_it_while_nobody_reads(bundle: Path, clip: Path) -> None:
    child = start(bundle, clip, *FAST, "--loop", "--fps", 300, "--json", "--seconds", 4)
    assert child.wait(timeout=60) == 1
    assert child.stdout is not None
    assert len(child.stdout.read()) > 30_000


def _wait_until_blocked(child: subprocess.Popen[str]) -> None:
    """Until the pipe is full: half a second without a byte more in it."""
    assert child.stdout is not None
    import fcntl
    import termios

    before, since, end = 0, time.monotonic(), time.monotonic() + 60
    while time.monotonic() < end:
        waiting = int.from_bytes(fcntl.ioctl(child.stdout.fileno(), termios.FIONREAD, b"\0" * 4), sys.byteorder)
        if waiting != before:
            before, since = waiting, time.monotonic()
        elif waiting > 30_000 and time.monotonic() - since > 0.5:
            return
        time.sleep(0.05)
    pytest.fail("the pipe did not fill up")


def test_a_reader_that_goes_away_is_no_traceback(bundle: Path, clip: Path) -> None:
    child = start(bundle, clip, *FAST, "--loop", "--json")
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=30) == 1
    assert child.stderr is not None
    assert child.stderr.read() == ""


def test_a_frozen_picture_is_marked(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "still.avi"
    with ClipWriter(path, RATE) as writer:
        for _ in range(45):
            writer.write(frame(0))
    _, results, summary = records(edgeseg(bundle, path, *FAST, "--json").stdout)
    assert summary["frozen"] > 5
    assert results[0]["frozen_s"] == 0
    assert results[-1]["frozen_s"] > 0.9


def test_a_clip_that_breaks_off_gives_its_results_and_one_line(bundle: Path, clip: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.avi"
    data = clip.read_bytes()
    short.write_bytes(data[: len(data) * 6 // 10])
    done = edgeseg(bundle, short, *FAST, "--lossless", "--json", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "truncated" in one_line(done.stderr)
    _, results, summary = records(done.stdout)
    assert 5 < len(results) < FRAMES
    assert summary["reason"] == "error"
    assert summary["error"] in done.stderr
    assert len(list((tmp_path / "out" / "masks").iterdir())) == len(results)


@pytest.mark.parametrize("source", ["pipe:-", "pipe:-?width=32&height=24"])
def test_a_source_that_ends_before_its_first_frame(bundle: Path, source: str) -> None:
    done = edgeseg(bundle, source, "--json", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert one_line(done.stderr) == "error: pipe:- ended before its first frame\n"
    start, *found = map(json.loads, done.stdout.splitlines())
    assert start["live"]
    assert [(r["kind"], r["reason"], r["captured"]) for r in found] == [("summary", "error", 0)]


@pytest.mark.parametrize(
    ("source", "said"),
    [("camera:99", "camera:99 cannot be opened"), ("nowhere.mp4", "nowhere.mp4"), ("gopher://x", "no protocol")],
)
def test_a_source_that_is_not_there(bundle: Path, source: str, said: str) -> None:
    done = edgeseg(bundle, source)
    assert done.returncode == 1
    assert said in one_line(done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "options",
    [("--link", "tensorflow"), ("--link", "openvino:int7"), ("--fps", 0), ("--smoothing", 1), ("--frames", 0)],
)
def test_bad_usage_is_exit_2(bundle: Path, clip: Path, options: tuple[object, ...]) -> None:
    done = edgeseg(bundle, clip, *options)
    assert done.returncode == 2
    assert str(options[0]) in one_line(done.stderr)


def test_a_dicom_object_needs_a_run(bundle: Path, clip: Path, tmp_path: Path) -> None:
    done = edgeseg(bundle, clip, "-o", tmp_path / "masks.dcm")
    assert done.returncode == 2
    assert "edgeseg run" in one_line(done.stderr)


def test_a_live_source_has_its_own_rate(bundle: Path) -> None:
    done = edgeseg(bundle, "pipe:-?width=32&height=24", "--fps", 30, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "--fps is for files" in one_line(done.stderr)


def test_json_never_eats_the_bundle(bundle_copy: Path, clip: Path) -> None:
    done = edgeseg("--json", bundle_copy, clip)
    assert done.returncode == 2
    assert "SOURCE" in one_line(done.stderr)
    assert bundle_copy.is_dir()


def test_files_of_others_are_not_overwritten(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = edgeseg(bundle, clip, "-o", tmp_path)
    assert done.returncode == 1
    assert "will not be touched" in one_line(done.stderr)


def test_a_folder_gets_every_frame_where_nothing_is_dropped(bundle: Path, clip: Path, tmp_path: Path) -> None:
    done = edgeseg(bundle, clip, "--link", "onnxruntime:int8", "--lossless", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"{FRAMES} results written" in done.stdout
    assert "deadline" not in done.stdout
    for name in ("masks", "overlays"):
        assert len(list((tmp_path / "out" / name).iterdir())) == FRAMES
    with (tmp_path / "out" / "results.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == FRAMES


def test_what_the_writer_has_no_time_for_is_counted(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    source = tmp_path / "source.png"
    cv2.imwrite(str(source), picture)
    mask = np.zeros(picture.shape[:2], np.uint8)
    with open_frames(source) as opened, DrawingThread(
        tmp_path / "o.mp4", opened, ("background", "x"), lossless=False
    ) as drawing:  # fmt: skip
        for index in range(60):
            drawing.put(StreamResult(index, f"f{index}", picture, mask, Freshness.FRESH, 1.0, 1.0, False, "link", 0))
    assert drawing.left_out > 0
    assert drawing.written + drawing.left_out == 60
    capture = Clip(tmp_path / "o.mp4")
    assert capture.length == drawing.written
    capture.close()


def test_an_output_that_cannot_be_written_ends_it(bundle: Path, tmp_path: Path, clip: Path) -> None:
    """A folder with several sizes of pictures cannot become a clip: found out by the writer, told by the stream."""
    folder = tmp_path / "sizes"
    folder.mkdir()
    for index, shape in enumerate([(64, 96), (64, 100), (64, 96)] * 20):
        cv2.imwrite(str(folder / f"{index:02d}.png"), np.full(shape, index, np.uint8))
    done = edgeseg(bundle, folder, *FAST, "-o", tmp_path / "out.mp4")
    assert done.returncode == 1
    assert "frames of several sizes" in one_line(done.stderr)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sizes"]


def without_permissions() -> None:
    """Neither real-time scheduling nor locked memory: no limits for them, and not the capabilities to go beyond."""
    libc = ctypes.CDLL(None)
    for capability in _CAPABILITIES.values():
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # which exec takes from root; others do not have them
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))


def test_real_time_that_is_not_permitted_is_said_and_not_fatal(bundle: Path, clip: Path) -> None:
    done = edgeseg(bundle, clip, *FAST, "--rt", "--frames", 5, "--json", preexec_fn=without_permissions)
    assert done.returncode == 0, done.stderr
    real_time = records(done.stdout)[0]["real_time"]
    assert real_time["priority"] == 0
    assert not real_time["memory_locked"]
    assert any("SCHED_FIFO is not permitted" in reason for reason in real_time["refused"])
    done = edgeseg(bundle, clip, *FAST, "--rt", "--frames", 5, preexec_fn=without_permissions)
    assert "real time: SCHED_OTHER, memory not locked; SCHED_FIFO is not permitted" in done.stdout


def engines(parent: int) -> list[int]:
    """The processes that engines run in, in the order they were started."""
    listed = [path.read_text().split() for path in Path(f"/proc/{parent}/task").glob("*/children")]
    return sorted(int(pid) for pids in listed for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_another_engine_takes_over(bundle: Path, clip: Path, number: signal.Signals) -> None:
    links = ("--link", "onnxruntime:int8", "--link", "litert:int8", "--deadline", 500)
    child = start(bundle, clip, *links, "--isolate", "--loop", "--frames", 90, "--json")
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(15)]
    first = engines(child.pid)[0]
    os.kill(first, number)
    rest, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert not Path(f"/proc/{first}").exists()
    start_record, results, summary = records("".join(lines) + rest)
    assert len(start_record["chain"]) == 2
    assert [results[0]["position"], results[-1]["position"]] == [0, 1]
    assert results[-1]["link"] == "tflite-int8 on litert cpu"
    (switch,) = summary["switches"]
    assert switch["source"] == "onnx-int8 on onnxruntime cpu"
    told = [r for r in results if r["fault"]]
    assert told[0]["index"] == switch["index"]
    assert all("onnx-int8 on onnxruntime cpu" in r["fault"] for r in told)


def test_no_engine_left_is_exit_1_with_the_last_frames_number(bundle: Path, clip: Path) -> None:
    child = start(bundle, clip, *FAST, "--isolate", "--loop", "--json")
    assert child.stderr is not None
    errors = child.stderr
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(15)]
    for pid in engines(child.pid):
        os.kill(pid, signal.SIGKILL)
    text = "".join(lines) + child.stdout.read()
    assert child.wait(timeout=60) == 1
    _, results, summary = records(text)
    said = one_line(errors.read())
    assert f"at frame {results[-1]['index']}" in said
    assert summary["reason"] == "error"
    assert summary["error"] in said


def in_terminal(*arguments: object) -> tuple[int, str]:
    """Run the command in a pseudo terminal of 80 columns: its exit code and all that it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
        os.execv(sys.executable, command(*arguments))
    written, end = b"", time.monotonic() + 60
    while time.monotonic() < end and select.select([terminal], [], [], 60)[0]:
        try:
            written += os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written.decode()


def test_on_a_terminal_of_80_columns(bundle: Path, frames: Path) -> None:
    code, written = in_terminal(bundle, frames, *FAST, "--loop", "--seconds", 2)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    panel = plain[plain.rindex("╭") : plain.rindex("╯") + 1]
    lines = panel.replace("\r", "").split("\n")
    assert {len(line) for line in lines} == {80}
    for word in ("128 x 96, 30 Hz", "onnx-int8 on onnxruntime cpu", "a second", "deadline 2000.0 ms", "fresh", "mm"):
        assert word in panel, panel
    assert "ended by --seconds" in plain[plain.rindex("╯") :]
