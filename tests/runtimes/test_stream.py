"""A stream gives one result for every frame that it takes, in order, in time or marked, and ends cleanly."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg import samples
from edgeseg.dataset import read_folder
from edgeseg.errors import BadInput, InferenceError
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.runtimes.segmenter import Segmenter, load
from edgeseg.runtimes.stream import Stream
from edgeseg.runtimes.stream_faults import Fault, FaultySession
from edgeseg.runtimes.stream_result import Freshness, StreamOptions
from edgeseg.smoothing import Smoother
from edgeseg.types import Format, Precision, ScanArea

Frames = list[np.ndarray]
Source = Callable[..., FrameSource]
ONNX = (Format.ONNX, Precision.FP32)


@pytest.fixture
def segmenter(make_bundle) -> Iterator[Segmenter]:
    with load(make_bundle(ONNX), runtime="onnxruntime") as loaded:
        yield loaded


def of_stream() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("edgeseg-")]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def wait_until(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def test_every_frame_of_a_file_is_segmented_in_order(segmenter: Segmenter, moving: Frames, still: Source) -> None:
    expected = [segmenter(f).mask for f in moving]
    with Stream(still(moving), segmenter) as stream:
        results = list(stream)
    assert [r.index for r in results] == list(range(len(moving)))
    for result, frame, mask in zip(results, moving, expected, strict=True):
        assert result.frame is frame
        assert result.freshness is Freshness.FRESH
        assert not result.late
        assert result.segmentation is not None
        assert (result.link, result.position, result.fault) == ("onnx-fp32 on onnxruntime cpu", 0, "")
        assert result.age_ms == pytest.approx(result.latency_ms)
        np.testing.assert_array_equal(result.mask, mask)
    stats = stream.stats
    assert (stats.captured, stats.fresh, stats.stale, stats.dropped, stats.unread) == (
        len(moving),
        len(moving),
        0,
        0,
        0,
    )
    assert next(stream, None) is None


def test_a_live_source_is_followed_at_its_rate(segmenter: Segmenter, moving: Frames, live: Source) -> None:
    with Stream(live(moving, 20, 50.0), segmenter, StreamOptions(deadline_ms=2000)) as stream:
        results = list(stream)
    assert [r.index for r in results] == list(range(20))
    assert {r.freshness for r in results} == {Freshness.FRESH}
    assert stream.stats.late == 0


def test_the_latest_frame_wins_over_those_that_wait(segmenter: Segmenter, moving: Frames, live: Source) -> None:
    FaultySession.inside(segmenter).delay_s = 0.05
    with Stream(live(moving, 40, 100.0), segmenter, StreamOptions(deadline_ms=5000)) as stream:
        results = list(stream)
    stats = stream.stats
    assert stats.dropped >= 15
    assert stats.captured == 40 == stats.fresh + stats.stale + stats.dropped
    assert sum(r.dropped for r in results) == stats.dropped
    assert results[-1].index == 39
    assert all(a.index < b.index for a, b in itertools.pairwise(results))


def test_an_engine_that_is_too_slow_gives_stale_results_and_stays(
    segmenter: Segmenter, moving: Frames, live: Source
) -> None:
    engine = FaultySession.inside(segmenter)

    def slow(index: int) -> None:
        engine.delay_s = 0.15 if index >= 3 else 0.0

    options = StreamOptions(deadline_ms=100, hang_ms=30000, results=50)
    with Stream(live(moving, 24, 20.0, slow), segmenter, options) as stream:
        results = list(stream)
    stale = [r for r in results if r.freshness is Freshness.STALE]
    assert len(stale) >= 5
    for result in stale:
        assert result.segmentation is None
        assert "no answer for" in result.fault or "not free in time" in result.fault
        assert result.age_ms is None or result.age_ms > result.latency_ms
        assert result.latency_ms < 400
    stats = stream.stats
    assert stats.overtaken >= 3
    assert stats.switches == ()
    assert stats.captured == 24 == stats.fresh + stats.stale + stats.dropped


def test_a_slow_engine_is_waited_for_where_nothing_may_be_lost(
    segmenter: Segmenter, moving: Frames, still: Source
) -> None:
    FaultySession.inside(segmenter).delay_s = 0.03
    with Stream(still(moving), segmenter, StreamOptions(deadline_ms=10, lossless=True)) as stream:
        results = list(stream)
    assert [r.freshness for r in results] == [Freshness.FRESH] * len(moving)
    assert all(r.late for r in results)
    assert stream.stats.late == len(moving)


@pytest.mark.parametrize("lossless", [True, False])
def test_a_consumer_that_never_reads(segmenter: Segmenter, moving: Frames, lossless: bool, live: Source) -> None:
    options = StreamOptions(deadline_ms=5000, lossless=lossless, results=3)
    with Stream(live(moving, 1000, 100.0), segmenter, options) as stream:
        # Frames are read ahead of the results only as far as there is room for them.
        wait_until(lambda: stream.stats.captured >= (4 if lossless else 30))
        time.sleep(0.2)
        stats = stream.stats
        if lossless:
            assert (stats.fresh, stats.unread, stats.captured) == (3, 0, 4)
        else:
            assert stats.unread >= stats.fresh - 3 > 0
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert of_stream() == []


def test_a_consumer_that_leaves_the_loop(segmenter: Segmenter, moving: Frames, live: Source) -> None:
    with Stream(live(moving, 1000), segmenter) as stream:
        for result in stream:
            if result.index >= 3:
                break
    assert of_stream() == []
    segmenter(moving[0])  # still its owner's
    stream.close()
    stats = stream.stats
    assert stats.captured == stats.fresh + stats.stale + stats.dropped


def test_a_stream_that_is_forgotten_ends_its_threads(segmenter: Segmenter, moving: Frames, live: Source) -> None:
    stream = Stream(live(moving, 1000), segmenter)
    stream.start()
    next(stream)
    del stream
    gc.collect()
    wait_until(lambda: not of_stream())


def test_closing_from_another_thread_ends_the_wait(segmenter: Segmenter, moving: Frames) -> None:
    blocked = threading.Event()

    def items() -> Iterator[FrameItem]:
        yield FrameItem(moving[0], "f0", 0)
        blocked.wait(30)

    source = FrameSource("stuck", SourceKind.CAMERA, items(), live=True, stop=blocked.set)
    with Stream(source, segmenter, StreamOptions(deadline_ms=5000)) as stream:
        assert next(stream).index == 0
        threading.Timer(0.1, stream.close).start()
        assert next(stream, None) is None
    assert of_stream() == []


def test_a_source_that_is_silent_can_be_waited_for_with_a_limit(segmenter: Segmenter, moving: Frames) -> None:
    silent = threading.Event()

    def items() -> Iterator[FrameItem]:
        yield FrameItem(moving[0], "f0", 0)
        silent.wait(30)

    source = FrameSource("stuck", SourceKind.CAMERA, items(), live=True, stop=silent.set)
    with Stream(source, segmenter, StreamOptions(deadline_ms=5000)) as stream:
        assert stream.read(20) is not None
        assert stream.read(0.05) is None
        assert not stream.ended
        silent.set()
        assert stream.read() is None
        assert stream.ended


def test_frames_that_come_too_late_still_teach_the_stream(segmenter: Segmenter, moving: Frames) -> None:
    def items() -> Iterator[FrameItem]:
        for index in range(10):
            time.sleep(0.1)
            yield FrameItem(moving[index % 8], f"f{index}", index, captured_s=time.monotonic() - 0.5)

    expected = [segmenter(f).mask for f in moving]
    source = FrameSource("slow link", SourceKind.IGTL, items(), live=True)
    with Stream(source, segmenter, StreamOptions(deadline_ms=100, results=10)) as stream:
        results = list(stream)
    assert [r.index for r in results] == list(range(10))
    assert all(r.late for r in results)
    stale = [r for r in results if r.freshness is Freshness.STALE]
    # Whoever is first, the watchdog or the segmenter: the mask is never older than the frame before.
    for result in stale:
        assert result.fault
        if result.index:
            assert result.age_ms < 500 + 200
            np.testing.assert_array_equal(result.mask, expected[(result.index - 1) % 8])


def test_a_source_that_ends_badly_says_so_after_the_last_result(segmenter: Segmenter, moving: Frames) -> None:
    def items() -> Iterator[FrameItem]:
        for index in range(3):
            yield FrameItem(moving[index], f"f{index}", index)
        raise BadInput("clip.mp4 ends early")

    with Stream(FrameSource("clip", SourceKind.CLIP, items()), segmenter) as stream:
        assert [next(stream).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(BadInput, match="ends early"):
            next(stream)
        assert next(stream, None) is None


def test_a_frame_that_is_none_is_the_source_s_fault(segmenter: Segmenter, moving: Frames, still: Source) -> None:
    source = still([moving[0], moving[0].astype(np.float32)])
    with Stream(source, segmenter) as stream:
        assert next(stream).index == 0
        with pytest.raises(BadInput, match="uint8"):
            next(stream)
    assert stream.stats.switches == ()


def test_frames_that_change_their_size(segmenter: Segmenter, moving: Frames, live: Source) -> None:
    large = np.ascontiguousarray(np.repeat(np.repeat(moving[0], 3, axis=0), 2, axis=1))
    gray = np.ascontiguousarray(large[:, :, 0])
    engine = FaultySession.inside(segmenter)

    def slow(index: int) -> None:
        engine.delay_s = 0.3 if index % 4 == 3 else 0.0

    options = StreamOptions(deadline_ms=60, hang_ms=30000, results=50)
    with Stream(live([moving[0], moving[1], large, gray], 12, 10.0, slow), segmenter, options) as stream:
        results = list(stream)
    for result in results:
        assert result.mask.shape == result.frame.shape[:2]
        assert result.mask.dtype == np.uint8
    assert any(r.freshness is Freshness.STALE and r.mask.any() for r in results)


def test_a_picture_that_stands_still_is_called_frozen(segmenter: Segmenter, moving: Frames) -> None:
    # By the clip's own clock, however fast it is read: 5 frames that move, then 35 that do not.
    items = (FrameItem(moving[i if i < 5 else 0], f"f{i}", i, time_s=i / 25) for i in range(40))
    with Stream(FrameSource("clip", SourceKind.CLIP, items), segmenter) as stream:
        results = list(stream)
    assert [r.index for r in results if r.frozen_s] == list(range(18, 40))
    assert results[-1].frozen_s == pytest.approx(34 / 25)
    assert stream.stats.frozen == 22


def test_smoothing_is_that_of_the_confidences(segmenter: Segmenter, moving: Frames, still: Source) -> None:
    smoother = Smoother(0.8)
    expected = []
    for frame in moving:
        confidence = segmenter(frame, confidence=True).confidence
        assert confidence is not None
        expected.append(smoother.update(confidence).copy())
    with Stream(still(moving), segmenter, StreamOptions(smoothing=0.8)) as stream:
        results = list(stream)
    for result, mask in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.mask, mask)
    assert any((r.mask != r.segmentation.mask).any() for r in results)


def test_the_scan_area_is_detected_once_and_held(make_bundle, still: Source) -> None:
    bundle = make_bundle(ONNX)
    preprocess = replace(bundle.preprocess, scan_area=ScanArea(detect=True))
    bundle = replace(bundle, manifest=replace(bundle.manifest, preprocess=preprocess))
    head = read_folder(samples.FRAMES).samples[0].read_frame()  # 540 x 800
    here, there = (np.zeros((600, 1200), np.uint8) for _ in range(2))
    here[30:570, 20:820] = there[30:570, 380:1180] = head
    with load(bundle, runtime="onnxruntime") as segmenter:
        with Stream(still([here] * 8 + [there] * 3), segmenter) as stream:
            areas = [r.segmentation.area for r in stream]
        first, moved = segmenter(here).area, segmenter(there).area
    assert areas == [first] * 11
    assert moved != first


def test_a_segmenter_that_does_not_work_stops_the_stream_before_its_first_frame(
    segmenter: Segmenter, moving: Frames, live: Source
) -> None:
    FaultySession.inside(segmenter).fault = Fault.EXCEPTION
    taken = []
    stream = Stream(live(moving, 5, at=taken.append), segmenter)
    with pytest.raises(InferenceError, match="injected"), stream:
        pytest.fail("the stream started")
    assert taken == []
    assert of_stream() == []


def test_what_is_no_stream(segmenter: Segmenter, moving: Frames, still: Source) -> None:
    with pytest.raises(BadInput, match="at least one segmenter"):
        Stream(still(moving), [])
    stream = Stream(still(moving), segmenter)
    with pytest.raises(InferenceError, match="`with`"):
        next(stream)
    with stream, pytest.raises(InferenceError, match="started before"):
        stream.start()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("deadline_ms", 0),
        ("hang_ms", -1),
        ("queue", 0),
        ("results", 0),
        ("freeze_s", 0),
        ("smoothing", 1.0),
        ("deadline_ms", float("nan")),
    ],
)
def test_options_out_of_range(option: str, value: float) -> None:
    with pytest.raises(BadInput, match=option):
        StreamOptions(**{option: value})


def test_nothing_piles_up(segmenter: Segmenter, moving: Frames, still: Source) -> None:
    def run(times: int) -> int:
        for _ in range(times):
            with Stream(still(moving), segmenter) as stream:
                assert sum(1 for _ in stream) == len(moving)
        gc.collect()
        return len(gc.get_objects())

    run(2)
    before, files, threads = run(5), open_files(), threading.active_count()
    after = run(20)
    assert open_files() == files
    assert threading.active_count() == threads
    assert after - before < 100


FORGETFUL = """
import sys, time
import numpy as np
import edgeseg
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.runtimes.stream_faults import Fault, FaultySession

def items():
    index = 0
    while True:
        time.sleep(0.005)
        yield FrameItem(np.full((24, 32, 3), index % 256, np.uint8), f"f{index}", index)
        index += 1

segmenter = edgeseg.load(sys.argv[1], runtime="onnxruntime")
engine = FaultySession.inside(segmenter)
stream = edgeseg.Stream(FrameSource("probe", SourceKind.CAMERA, items(), live=True), segmenter)
stream.start()
next(stream)
if sys.argv[2] == "hangs":
    engine.fault = Fault.HANG
    time.sleep(0.3)
print("done", flush=True)
"""


@pytest.mark.parametrize("how", ["runs", "hangs"])
def test_the_interpreter_ends_while_a_stream_runs(make_bundle, how: str) -> None:
    command = [sys.executable, "-c", FORGETFUL, str(make_bundle(ONNX).path), how]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=Path(edgeseg.__file__).parent.parent
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert ("left behind" in done.stderr) == (how == "hangs")
    assert "Traceback" not in done.stderr
