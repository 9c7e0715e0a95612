"""Sources, options, faults and consumers drawn by chance: what holds of every stream holds of all of them."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from edgeseg.errors import BadInput, StreamFailed
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.runtimes.segmenter import load
from edgeseg.runtimes.stream import Stream
from edgeseg.runtimes.stream_faults import Fault, FaultySession
from edgeseg.runtimes.stream_result import Freshness, StreamOptions, StreamResult
from edgeseg.types import Format, Precision

FRAMES = [np.random.default_rng(i).integers(0, 255, (60 + i, 80), dtype=np.uint8) for i in range(5)]


@dataclass(frozen=True)
class Scene:
    """A source, what happens to its engines, and who reads."""

    chance: random.Random
    engines: list[FaultySession]
    count: int
    rate_hz: float
    live: bool
    bad_end: bool
    leaves: bool
    pause_s: float

    @classmethod
    def drawn(cls, chance: random.Random, engines: list[FaultySession]) -> Scene:
        return cls(
            chance,
            engines,
            chance.randint(1, 50),
            chance.choice([50, 200, 500]),
            chance.random() < 0.8,
            chance.random() < 0.1,
            chance.random() < 0.2,
            chance.choice([0, 0, 0, 0.01]),
        )

    def options(self) -> StreamOptions:
        draw = self.chance.choice
        return StreamOptions(
            queue=draw([1, 2, 3]),
            results=draw([1, 2, 100]),
            lossless=draw([None, None, True, False]),
            hang_ms=draw([None, 15, 40]) if self.live else 60,
            deadline_ms=draw([None, 5, 20]),
            smoothing=draw([0, 0, 0.5]),
        )

    def source(self) -> FrameSource:
        return FrameSource("chance", SourceKind.CAMERA, self._items(), rate_hz=self.rate_hz, live=self.live)

    def _items(self) -> Iterator[FrameItem]:
        strikes = {self.chance.randrange(self.count) for _ in range(self.chance.randint(0, 4))}
        start = time.monotonic()
        for index in range(self.count):
            due = start + index / self.rate_hz
            if self.live:
                time.sleep(max(0.0, due - time.monotonic()))
            if index in strikes:
                self._strike(self.chance.choice(self.engines))
            stamped = self.live and self.chance.random() < 0.9
            yield FrameItem(self.chance.choice(FRAMES), f"f{index}", index, captured_s=due if stamped else None)
        if self.bad_end:
            raise BadInput("a bad end")

    def _strike(self, engine: FaultySession) -> None:
        fault = self.chance.choice([Fault.EXCEPTION, Fault.NAN, Fault.SHAPE, Fault.HANG, None])
        if fault:
            engine.fault = fault
        else:
            engine.delay_s = self.chance.random() * 0.02

    def read(self, stream: Stream) -> tuple[list[StreamResult], str]:
        results = []
        try:
            for result in stream:
                results.append(result)
                time.sleep(self.pause_s)
                if self.leaves and self.chance.random() < 0.1:
                    return results, "left"
        except StreamFailed:
            return results, "failed"
        except BadInput:
            assert self.bad_end
            return results, "ended"
        return results, "ended"


@pytest.mark.parametrize("seed", range(40))
def test_what_holds_of_every_stream(make_bundle, seed: int) -> None:
    bundle = make_bundle((Format.ONNX, Precision.FP32))
    chance = random.Random(seed)
    segmenters = [load(bundle, runtime="fake") for _ in range(chance.randint(1, 3))]
    scene = Scene.drawn(chance, [FaultySession.inside(segmenter) for segmenter in segmenters])
    options = scene.options()
    with Stream(scene.source(), segmenters, options) as stream:
        results, outcome = scene.read(stream)
        for engine in scene.engines:
            engine.repair()
    stats = stream.stats
    assert all(a.index < b.index and a.position <= b.position for a, b in itertools.pairwise(results))
    assert all(r.mask.shape == r.frame.shape[:2] for r in results)
    assert all((r.segmentation is None) == (r.freshness is Freshness.STALE) for r in results)
    assert stats.captured == stats.fresh + stats.stale + stats.dropped
    if outcome != "left":
        assert stats.fresh + stats.stale == len(results) + stats.unread
    if outcome == "ended":
        assert stats.captured == scene.count
        assert len(stats.switches) < len(segmenters)
        if options.lossless or (options.lossless is None and not scene.live):
            assert [r.index for r in results] == list(range(scene.count))
            assert stats.fresh == scene.count
    elif outcome == "failed":
        assert len(stats.switches) == len(segmenters)
    assert not [t for t in threading.enumerate() if t.name.startswith("edgeseg-")]
