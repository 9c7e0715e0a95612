"""Which thread may do what: a segmenter for each is always right, a shared one is right or says no."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import cv2
import numpy as np
import pytest

import edgeseg
from edgeseg.errors import InferenceError
from edgeseg.frames import open_frames
from edgeseg.plugins import ENGINES
from edgeseg.samples import FRAMES
from edgeseg.types import Bundle, Frame, Mask

PATIENCE_S = 60.0
engines = pytest.mark.parametrize("runtime", ENGINES)


@pytest.fixture(scope="module")
def pictures() -> tuple[Frame, ...]:
    """Real frames with the gain turned up: the probe model finds what is bright."""
    with open_frames(FRAMES) as source:
        return tuple(cv2.convertScaleAbs(item.frame, alpha=3.0) for item in source)[:8]


@pytest.fixture
def probe(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def masks_of(bundle: Bundle, runtime: str, precision: str, pictures: tuple[Frame, ...]) -> list[Mask]:
    with edgeseg.load(bundle, runtime=runtime, precision=precision) as segmenter:
        return [segmenter(picture).mask for picture in pictures]


def same(found: list[Mask], expected: list[Mask]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_frames_have_masks_that_differ(probe, pictures):
    """Or the tests below could not tell them apart."""
    masks = masks_of(probe, "onnxruntime", "fp32", pictures)
    assert len({(mask.shape, mask.tobytes()) for mask in masks}) == len(pictures)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@engines
def test_a_segmenter_for_each_thread(probe, pictures, pool, runtime, precision):
    expected = masks_of(probe, runtime, precision, pictures)
    together = Barrier(4)

    def work(rounds: int) -> bool:
        with edgeseg.load(probe, runtime=runtime, precision=precision) as segmenter:
            together.wait(PATIENCE_S)
            return all(same([segmenter(p).mask for p in pictures], expected) for _ in range(rounds))

    assert list(pool.map(work, [10] * 4)) == [True] * 4


def test_three_engines_in_three_threads(probe, pictures, pool):
    expected = {runtime: masks_of(probe, runtime, "fp32", pictures) for runtime in ENGINES}
    together = Barrier(3)

    def work(runtime: str) -> bool:
        with edgeseg.load(probe, runtime=runtime, precision="fp32") as segmenter:
            together.wait(PATIENCE_S)
            return all(same([segmenter(p).mask for p in pictures], expected[runtime]) for _ in range(10))

    assert list(pool.map(work, ENGINES)) == [True] * 3


@engines
def test_a_shared_segmenter_is_right_or_says_no(probe, pictures, pool, runtime):
    expected = masks_of(probe, runtime, "fp32", pictures)
    refused, stop = Event(), Event()

    def hammer(segmenter: Any, index: int) -> int:
        right = 0
        while not stop.is_set():
            try:
                mask = segmenter(pictures[index]).mask
            except InferenceError as error:
                assert "in use by another thread" in str(error)
                refused.set()
            else:
                assert np.array_equal(mask, expected[index])
                right += 1
        return right

    with edgeseg.load(probe, runtime=runtime, precision="fp32") as segmenter:
        users = [pool.submit(hammer, segmenter, index) for index in range(2)]
        until = time.monotonic() + PATIENCE_S
        while not (refused.is_set() or any(user.done() for user in users)) and time.monotonic() < until:
            time.sleep(0.2)
        stop.set()
        assert sum(user.result(PATIENCE_S) for user in users) > 0
        assert refused.is_set()
        assert np.array_equal(segmenter(pictures[0]).mask, expected[0])


@engines
def test_made_in_one_thread_and_used_in_others(probe, pictures, pool, runtime):
    expected = masks_of(probe, runtime, "fp32", pictures)
    segmenter = pool.submit(edgeseg.load, probe, runtime=runtime, precision="fp32").result(PATIENCE_S)
    with segmenter:
        for picture, mask in zip(pictures, expected, strict=True):
            assert np.array_equal(pool.submit(segmenter, picture).result(PATIENCE_S).mask, mask)
    with pytest.raises(InferenceError, match="closed"):
        segmenter(pictures[0])


def test_loaded_and_closed_at_the_same_time(probe, pictures, pool):
    expected = {runtime: masks_of(probe, runtime, "int8", pictures[:1])[0] for runtime in ENGINES}

    def work(turn: int) -> bool:
        runtime = ENGINES[turn % len(ENGINES)]
        with edgeseg.load(probe, runtime=runtime, precision="int8") as segmenter:
            return np.array_equal(segmenter(pictures[0]).mask, expected[runtime])

    assert all(pool.map(work, range(36)))


def test_races_at_the_same_time_have_a_winner_each(probe, pictures, pool):
    def work(_turn: int) -> tuple[int, ...]:
        with edgeseg.load(probe) as segmenter:
            assert segmenter.skipped == {}
            return segmenter(pictures[0]).mask.shape

    assert set(pool.map(work, range(4))) == {pictures[0].shape[:2]}


@engines
def test_closed_by_another_thread_in_a_call(probe, pictures, pool, runtime):
    expected = masks_of(probe, runtime, "fp32", pictures)
    for _ in range(10):
        begun = Event()
        segmenter = edgeseg.load(probe, runtime=runtime, precision="fp32")

        def work(segmenter: Any = segmenter, begun: Event = begun) -> None:
            while True:
                for picture, mask in zip(pictures, expected, strict=True):
                    assert np.array_equal(segmenter(picture).mask, mask)
                    begun.set()

        running = pool.submit(work)
        assert begun.wait(PATIENCE_S)
        segmenter.close()
        segmenter.close()
        with pytest.raises(InferenceError, match="closed"):
            running.result(PATIENCE_S)


@engines
def test_results_are_the_callers_and_frames_stay_as_they_are(probe, pictures, runtime):
    with edgeseg.load(probe, runtime=runtime, precision="fp32") as segmenter:
        frame = pictures[0].copy()
        frame.flags.writeable = False
        kept = segmenter(frame)
        mask = kept.mask.copy()
        for picture in pictures[1:]:
            segmenter(picture)
        assert np.array_equal(kept.mask, mask)
        kept.mask[:] = 7
        assert np.array_equal(segmenter(frame).mask, mask)
    assert np.array_equal(frame, pictures[0])


FORK = """
import os, signal, sys
import numpy as np
import edgeseg

path, isolated = sys.argv[1], sys.argv[2] == "isolated"
frame = np.load(sys.argv[3])
engines = ("onnxruntime", "openvino", "litert")
segmenters = [edgeseg.load(path, runtime=name, precision="fp32", isolate=isolated) for name in engines]
expected = [segmenter(frame).mask for segmenter in segmenters]

def error_of(call):
    try:
        call()
    except edgeseg.InferenceError as error:
        return str(error)
    return "none"

child = os.fork()
if not child:
    signal.alarm(60)  # rather than to wait for ever for threads that are not there
    for segmenter in segmenters:
        assert "forked" in error_of(lambda: segmenter(frame)), error_of(lambda: segmenter(frame))
        segmenter.close()
    here = {}
    for name, mask in zip(engines, expected):
        def load(name=name, mask=mask):
            with edgeseg.load(path, runtime=name, precision="fp32", isolate=isolated) as fresh:
                assert np.array_equal(fresh(frame).mask, mask)
        here[name] = error_of(load)
    assert here["onnxruntime"] == here["litert"] == "none", here
    assert here["openvino"] == "none" if isolated else "spawn" in here["openvino"], here
    with edgeseg.load(path, isolate=isolated) as fresh:
        assert fresh(frame).mask.shape == frame.shape[:2]
    os._exit(7)  # as multiprocessing does: openvino waits for its threads in an ordinary exit

assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
for segmenter, mask in zip(segmenters, expected):
    assert np.array_equal(segmenter(frame).mask, mask)
    segmenter.close()
"""


@pytest.mark.parametrize("where", ["here", "isolated"])
def test_engines_do_not_survive_a_fork_and_say_so(probe, pictures, tmp_path, where):
    np.save(tmp_path / "frame.npy", pictures[0])
    done = subprocess.run(
        [sys.executable, "-c", FORK, probe.path, where, tmp_path / "frame.npy"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
