"""Whatever an engine does, there is a result for every frame, and the next segmenter of the chain goes on."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import StreamFailed
from edgeseg.frame_source import FrameSource
from edgeseg.runtimes.sandbox import Limits
from edgeseg.runtimes.segmenter import Segmenter, load
from edgeseg.runtimes.stream import Stream
from edgeseg.runtimes.stream_faults import Fault, FaultySession
from edgeseg.runtimes.stream_result import Freshness, StreamOptions, StreamResult
from edgeseg.types import Format, Precision

Frames = list[np.ndarray]
Source = Callable[..., FrameSource]
FIRST, SECOND = "onnx-fp32 on onnxruntime cpu", "tflite-int8 on litert cpu"
AT, COUNT = 6, 16
# The machine of the tests may be busy: nothing is late or hangs for a second.
OPTIONS = StreamOptions(deadline_ms=1000, hang_ms=5000, results=COUNT)


@pytest.fixture
def chain(make_bundle) -> Iterator[tuple[Segmenter, Segmenter]]:
    bundle = make_bundle((Format.ONNX, Precision.FP32), (Format.TFLITE, Precision.INT8))
    with load(bundle, runtime="onnxruntime") as first, load(bundle, runtime="litert") as second:
        yield first, second


def arm(engine: FaultySession, fault: Fault, at: int = AT) -> Callable[[int], None]:
    def tell(index: int) -> None:
        if index == at:
            engine.fault = fault

    return tell


def check_after(results: list[StreamResult], first: int) -> None:
    """Every result from a frame on is fresh, and of the second segmenter."""
    assert [r.index for r in results] == list(range(COUNT))
    after = results[first:]
    assert {r.freshness for r in after} == {Freshness.FRESH}
    assert {(r.link, r.position) for r in after} == {(SECOND, 1)}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.EXCEPTION, "an injected failure"),
        (Fault.NAN, "not finite"),
        (Fault.SHAPE, "shape"),
    ],
)
def test_a_frame_on_which_an_engine_fails_is_segmented_by_the_next(
    chain: tuple[Segmenter, Segmenter],
    moving: Frames,
    live: Source,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    said: str,
) -> None:
    expected = chain[1](moving[AT]).mask
    engine = FaultySession.inside(chain[0])
    with (
        caplog.at_level(logging.WARNING, "edgeseg.stream"),
        Stream(live(moving, COUNT, 20.0, arm(engine, fault)), chain, OPTIONS) as stream,
    ):
        results = list(stream)
    check_after(results, AT)
    assert {r.position for r in results[:AT]} == {0}
    assert [r.index for r in results if r.fault] == [AT]
    assert results[AT].fault.startswith(f"{FIRST}: ")
    assert said in results[AT].fault
    np.testing.assert_array_equal(results[AT].mask, expected)
    [switch] = stream.stats.switches
    assert (switch.index, switch.source, switch.target) == (AT, FIRST, SECOND)
    assert said in switch.reason
    assert FIRST not in switch.reason
    assert [r.getMessage() for r in caplog.records] == [
        f"frame {AT}: {FIRST} is given up ({switch.reason}), {SECOND} takes over"
    ]


def test_an_engine_that_hangs_is_left_after_stale_results_in_time(
    chain: tuple[Segmenter, Segmenter], moving: Frames, live: Source, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FaultySession.inside(chain[0])
    options = StreamOptions(deadline_ms=200, results=COUNT)
    with (
        caplog.at_level(logging.WARNING, "edgeseg.stream"),
        Stream(live(moving, COUNT, 5.0, arm(engine, Fault.HANG)), chain, options) as stream,
    ):
        results = list(stream)
    # By default it is given up after two deadlines, which here are two frames.
    check_after(results, AT + 3)
    stale = [r for r in results if r.freshness is Freshness.STALE]
    assert stale[0].index == AT
    assert FIRST in stale[0].fault
    assert "no answer" in stale[0].fault
    for result in stale:
        np.testing.assert_array_equal(result.mask, results[AT - 1].mask)
        assert result.age_ms == pytest.approx(result.latency_ms + (result.index - AT + 1) * 200, abs=1)
        assert result.latency_ms < 600
    [switch] = stream.stats.switches
    assert (switch.index, switch.source, switch.target) == (AT, FIRST, SECOND)
    assert "no answer within" in switch.reason
    assert any("left behind" in r.getMessage() for r in caplog.records)
    engine.repair()


def test_an_engine_that_hangs_on_the_last_frame(
    chain: tuple[Segmenter, Segmenter], moving: Frames, live: Source
) -> None:
    engine = FaultySession.inside(chain[0])
    with Stream(
        live(moving, AT + 1, 10.0, arm(engine, Fault.HANG)), chain, StreamOptions(deadline_ms=100, results=COUNT)
    ) as stream:
        results = list(stream)
        engine.repair()
    assert [r.index for r in results] == list(range(AT + 1))
    assert results[-1].freshness is Freshness.STALE


def test_an_engine_that_crashes_in_its_own_process(make_bundle, moving: Frames, live: Source) -> None:
    bundle = make_bundle((Format.ONNX, Precision.FP32), (Format.TFLITE, Precision.INT8))
    with (
        load(bundle, runtime="onnxruntime", isolate=True) as first,
        load(bundle, runtime="litert") as second,
        Stream(
            live(moving, COUNT, 20.0, arm(FaultySession.inside(first), Fault.SEGFAULT)), (first, second), OPTIONS
        ) as stream,
    ):
        results = list(stream)
    check_after(results, AT)
    assert "SIGSEGV" in results[AT].fault
    assert len(stream.stats.switches) == 1


def test_an_isolated_engine_that_hangs_is_ended_by_its_limit(make_bundle, moving: Frames, live: Source) -> None:
    bundle = make_bundle((Format.ONNX, Precision.FP32), (Format.TFLITE, Precision.INT8))
    with (
        load(bundle, runtime="onnxruntime", isolate=Limits(run_s=0.5)) as first,
        load(bundle, runtime="litert") as second,
    ):
        pid = first._session.pid

        def stop(index: int) -> None:
            if index == AT:
                os.kill(pid, signal.SIGSTOP)

        options = StreamOptions(deadline_ms=200, results=COUNT, hang_ms=10000)
        with Stream(live(moving, COUNT, 5.0, stop), (first, second), options) as stream:
            results = list(stream)
    check_after(results, AT + 4)
    assert results[AT].freshness is Freshness.STALE
    assert "longer than the limit of 0.5 s" in stream.stats.switches[0].reason


def test_an_isolated_engine_that_hangs_is_ended_when_it_is_given_up(
    make_bundle, moving: Frames, live: Source, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_bundle((Format.ONNX, Precision.FP32), (Format.TFLITE, Precision.INT8))
    with (
        load(bundle, runtime="onnxruntime", isolate=Limits(run_s=60)) as first,
        load(bundle, runtime="litert") as second,
    ):
        pid = first._session.pid

        def stop(index: int) -> None:
            if index == AT:
                os.kill(pid, signal.SIGSTOP)

        options = StreamOptions(deadline_ms=200, results=COUNT)
        with Stream(live(moving, COUNT, 5.0, stop), (first, second), options) as stream:
            results = list(stream)
        assert not Path(f"/proc/{pid}").exists()
    check_after(results, AT + 3)
    assert "left behind" not in caplog.text


def test_without_a_fallback_the_stream_ends_and_names_the_frame(
    chain: tuple[Segmenter, Segmenter], moving: Frames, live: Source, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FaultySession.inside(chain[0])
    results = []
    with (
        Stream(live(moving, 1000, 20.0, arm(engine, Fault.EXCEPTION)), chain[0], OPTIONS) as stream,
        pytest.raises(StreamFailed) as caught,
    ):
        results += stream
    assert [r.index for r in results] == list(range(AT + 1))
    assert results[-1].freshness is Freshness.STALE
    assert results[-1].age_ms is not None
    np.testing.assert_array_equal(results[-1].mask, results[-2].mask)
    message = str(caught.value)
    assert f"frame {AT}: {FIRST}" in message
    assert "an injected failure" in message
    assert "\n" not in message
    assert next(stream, None) is None
    assert stream.stats.switches[0].target == ""
    assert "no segmenter is left" in caplog.text


def test_the_last_segmenter_has_patience_and_then_the_stream_ends(
    chain: tuple[Segmenter, Segmenter], moving: Frames, live: Source
) -> None:
    engine = FaultySession.inside(chain[0])
    results = []
    with (
        Stream(
            live(moving, 1000, 20.0, arm(engine, Fault.HANG)), chain[0], StreamOptions(deadline_ms=50, results=99)
        ) as stream,
        pytest.raises(StreamFailed, match=f"frame {AT}.*no answer within"),
    ):
        results += stream
    engine.repair()
    stale = [r for r in results if r.freshness is Freshness.STALE and r.index >= AT]
    # A second, in which frames go on to be answered.
    assert 10 <= len(stale) <= 100


def test_every_segmenter_of_a_chain_may_fail_in_turn(make_bundle, moving: Frames, live: Source) -> None:
    bundle = make_bundle()
    with ExitStack() as stack:
        chain = [
            stack.enter_context(load(bundle, runtime=runtime, precision=precision))
            for runtime, precision in (("openvino", "int8"), ("litert", "int8"), ("onnxruntime", "fp32"))
        ]
        engines = [FaultySession.inside(segmenter) for segmenter in chain[:2]]

        def tell(index: int) -> None:
            if index in (4, 8):
                engines[index // 4 - 1].fault = Fault.EXCEPTION

        with Stream(live(moving, COUNT, 20.0, tell), chain, OPTIONS) as stream:
            results = list(stream)
    assert [r.position for r in results] == [0] * 4 + [1] * 4 + [2] * 8
    assert [r.index for r in results if r.fault] == [4, 8]
    assert {r.freshness for r in results} == {Freshness.FRESH}
    assert [s.index for s in stream.stats.switches] == [4, 8]


def test_two_links_that_fail_on_one_frame(chain: tuple[Segmenter, Segmenter], moving: Frames, live: Source) -> None:
    engines = [FaultySession.inside(segmenter) for segmenter in chain]

    def tell(index: int) -> None:
        if index == AT:
            for engine in engines:
                engine.fault = Fault.NAN

    results = []
    with Stream(live(moving, COUNT, 20.0, tell), chain, OPTIONS) as stream, pytest.raises(StreamFailed, match=SECOND):
        results += stream
    assert [r.index for r in results] == list(range(AT + 1))
    assert [s.target for s in stream.stats.switches] == [SECOND, ""]


def test_nothing_is_lost_of_a_file_when_its_engine_fails(
    chain: tuple[Segmenter, Segmenter], moving: Frames, still: Source
) -> None:
    engine = FaultySession.inside(chain[0])
    with Stream(still(moving), chain, StreamOptions(hang_ms=300)) as stream:
        first = next(stream)
        engine.fault = Fault.HANG
        results = [first, *stream]
    engine.repair()
    assert [r.index for r in results] == list(range(len(moving)))
    assert {r.freshness for r in results} == {Freshness.FRESH}
    assert len(stream.stats.switches) == 1
