"""Figures, gates and dominance, on points made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeseg import metrics
from edgeseg.errors import BadInput, InferenceError
from edgeseg.frontier.document import Data, Frontier, HeldFrame, Limits, Point, Samples, encode, read
from edgeseg.frontier.judging import dominates, judge, reference_of
from edgeseg.frontier.panels import panels

EXAMS = ("a", "a", "b", "c")
FRAMES = tuple(HeldFrame(f"{i}.png", exam) for i, exam in enumerate(EXAMS))
DENSE = (0.98, 0.96, 0.97, 0.95)


def point(name: str, ms: float, dice: tuple[float, ...] = DENSE, hc: float = 2.0, **known: object) -> Point:
    samples = Samples(dice, (hc, hc, None, hc), (ms, ms * 0.9, ms * 1.1), (ms + 1,))
    values = {"format": "onnx", "precision": "int8", "runtime": "onnxruntime", "size_mb": 1.0, **known}
    return Point(name, name.partition("/")[0], samples=samples, **values)


def torch(ms: float = 40.0) -> Point:
    return point("dense/torch", ms, format="torch", precision="fp32", runtime="torch", source="dense", size_mb=8.0)


def judged(*points: Point, limits: Limits | None = None, frames: tuple[HeldFrame, ...] = FRAMES) -> dict[str, Any]:
    """The points by name, and the name of the best under "best"."""
    data = Data("frames", "test", "", 0.0, frames)
    frontier = judge(Frontier(points, data, points[0].name, limits or Limits()))
    return {p.name: p for p in frontier.rows} | {"best": frontier.best}


def lower(by: float) -> tuple[float, ...]:
    return tuple(d - by for d in DENSE)


def test_dominance_needs_no_worse_and_one_better() -> None:
    assert dominates((1, 2), (1, 3))
    assert dominates((0, 2), (1, 2))
    assert not dominates((1, 2), (1, 2))
    assert not dominates((1, 4), (2, 3))


def test_a_slower_and_worse_point_is_dominated_by_the_fastest_better_one() -> None:
    points = judged(
        torch(), point("a/x", 4), point("b/x", 2), point("c/x", 5, lower(0.001)), point("d/x", 1, lower(0.01))
    )
    assert {name: p.dominated_by for name, p in points.items() if name != "best"} == {
        "dense/torch": "b/x",
        "a/x": "b/x",
        "b/x": None,
        "c/x": "b/x",
        "d/x": None,
    }
    assert [points[n].dominated for n in ("c/x", "d/x")] == [True, False]


@pytest.mark.parametrize(("worse", "dominated"), [(0.00001, True), (0.0002, False)])
def test_differences_below_the_rounding_do_not_save_a_slower_point(worse: float, dominated: bool) -> None:
    points = judged(torch(), point("fast/x", 2, lower(worse)), point("slow/x", 3))
    assert points["slow/x"].dominated is dominated


def test_every_axis_can_keep_a_point_on_the_frontier() -> None:
    one_bad_frame = (*DENSE[:3], 0.90)
    same_mean = tuple(np.mean(one_bad_frame) for _ in DENSE)
    points = judged(
        torch(), point("a/x", 2, one_bad_frame), point("b/x", 3, same_mean), point("c/x", 3, lower(0.1), hc=1.9)
    )
    assert points["b/x"].dominated is False
    assert points["c/x"].dominated is False


def test_size_is_ranked_apart_from_latency() -> None:
    points = judged(torch(), point("fast/x", 1, size_mb=2.0), point("small/x", 3, size_mb=0.3))
    assert (points["fast/x"].dominated, points["fast/x"].dominated_in_size) == (False, True)
    assert (points["small/x"].dominated_by, points["small/x"].dominated_in_size) == ("fast/x", False)


def test_a_point_without_a_size_has_no_rank_in_size() -> None:
    points = judged(torch(), point("a/x", 1, size_mb=None))
    assert points["a/x"].dominated_in_size is None
    assert points["a/x"].dominated is False


def test_differences_are_paired_and_drawn_by_exam() -> None:
    worse = (0.97, 0.96, 0.95, 0.95)
    found = judged(torch(), point("a/x", 1, worse))["a/x"]
    assert found.dice == pytest.approx(np.mean(worse))
    assert found.dice_difference == pytest.approx(-0.03 / 4)
    assert found.dice_ci == metrics.bootstrap_interval(worse, EXAMS)
    assert found.dice_difference_ci == metrics.bootstrap_interval(np.subtract(worse, DENSE).tolist(), EXAMS)
    assert (found.worst_dice, found.worst_file) == (0.95, "2.png")


def test_frames_without_a_reference_measurement_are_left_out_of_the_mean() -> None:
    found = judged(torch(), point("a/x", 1, hc=2.4))["a/x"]
    assert found.hc_mae_mm == pytest.approx(2.4)
    assert found.hc_difference_mm == pytest.approx(0.4)
    assert found.hc_difference_ci == pytest.approx((0.4, 0.4))


@pytest.mark.parametrize(
    "frames", [tuple(replace(f, exam=None) for f in FRAMES), tuple(replace(f, exam="one") for f in FRAMES)]
)
def test_no_interval_without_several_exams(frames: tuple[HeldFrame, ...]) -> None:
    found = judged(torch(), point("a/x", 1), frames=frames)["a/x"]
    assert found.dice is not None
    assert found.dice_ci is found.dice_difference_ci is found.hc_mae_ci is found.hc_difference_ci is None


def test_the_best_is_the_fastest_that_keeps_every_limit_and_is_no_source() -> None:
    broken = (*DENSE[:3], 0.84)
    points = judged(
        torch(0.1),
        point("dice/x", 1, lower(0.006)),
        point("hc/x", 1.1, hc=2.31),
        point("frame/x", 1.2, broken),
        point("slow/x", 9),
        point("good/x", 2, lower(0.004), hc=2.29),
    )
    assert points["best"] == "good/x"
    assert [points[f"{n}/x"].passed for n in ("dice", "hc", "frame", "slow", "good")] == [False] * 3 + [True] * 2
    assert points["dice/x"].reason == "Dice -0.60 points, limit -0.50"
    assert points["hc/x"].reason == "head circumference +0.31 mm, limit +0.30"
    assert points["frame/x"].reason == "Dice -2.75 points, limit -0.50; 3.png at Dice 84.00, limit 85.00"


def test_the_limits_are_choices() -> None:
    strict = Limits(dice_drop=0.001, hc_increase_mm=0.1, worst_dice=0.96)
    found = judged(torch(), point("a/x", 1, lower(0.004), hc=2.2), limits=strict)
    assert found["best"] is None
    assert found["a/x"].reason is not None
    assert found["a/x"].reason.count("limit") == 3


def test_ratios_are_of_medians_and_to_the_baselines_of_the_reference() -> None:
    own = {"format": "openvino", "precision": "fp32", "runtime": "openvino"}
    points = judged(
        torch(),
        replace(torch(20), name="dense/torch-channels-last", runtime="torch-channels-last"),
        point("pruned/openvino-fp32", 5, **own),
        point("same/openvino-fp32", 10, source="dense", **own),
        point("a/x", 2),
    )
    assert points["a/x"].speedup == pytest.approx({"torch": 20, "torch_channels_last": 10, "openvino_fp32": 5})


def test_a_baseline_that_was_not_measured_is_null() -> None:
    points = judged(point("a/x", 2), point("b/x", 1))
    assert points["b/x"].speedup == {"torch": None, "torch_channels_last": None, "openvino_fp32": None}


def test_the_reference_is_the_first_source_else_the_first_fp32_artifact() -> None:
    fp32 = point("a/onnx-fp32", 2, precision="fp32")
    assert reference_of([point("b/x", 1), fp32, torch()]) == "dense/torch"
    assert reference_of([point("b/x", 1), fp32]) == "a/onnx-fp32"
    with pytest.raises(BadInput, match="--source or --reference"):
        reference_of([point("b/x", 1)])


def test_a_reference_that_failed_is_said() -> None:
    with pytest.raises(InferenceError, match="a/x was not measured: broken"):
        judged(replace(point("a/x", 1), samples=None, state="failed", reason="broken"), point("b/x", 1))


def test_what_was_not_measured_has_no_figures_and_no_rank() -> None:
    failed = judged(torch(), replace(point("a/x", 1), samples=None, state="failed", reason="broken"))["a/x"]
    assert failed.p50_ms is failed.dice is failed.dominated is failed.passed is None
    assert failed.reason == "broken"


def test_without_masks_and_references_nothing_is_judged() -> None:
    bare = [
        replace(p, samples=replace(p.samples, dice=None, hc_error_mm=(None,) * 4)) for p in (torch(), point("a/x", 1))
    ]
    found = judged(*bare)
    assert found["best"] is None
    assert found["a/x"].dominated is found["a/x"].passed is found["a/x"].dice is found["a/x"].hc_mae_mm is None
    assert found["a/x"].speedup["torch"] == pytest.approx(40)


def test_a_document_survives_its_file(tmp_path) -> None:
    frontier = judge(Frontier((torch(), point("a/x", 1)), Data("frames", "", "", 0.1, FRAMES), "dense/torch"))
    (tmp_path / "f.json").write_bytes(encode(frontier))
    assert judge(read(tmp_path / "f.json")) == frontier


def test_a_point_far_off_the_scale_is_drawn_at_the_edge_of_its_panel() -> None:
    points = (torch(), point("bad/x", 1, lower(0.6), hc=90), point("good/x", 2, lower(0.002)))
    frontier = judge(Frontier(points, Data("frames", "", "", 0.0, FRAMES), "dense/torch"))
    for panel in panels(frontier, "p50_ms"):
        bad = next(m for m in panel.marks if m.point.name == "bad/x")
        assert bad.y != bad.value
        assert all(panel.bottom <= m.y <= panel.top for m in panel.marks)
        assert [x for x, _ in panel.staircase] == sorted({x for x, _ in panel.staircase})
    dice = panels(frontier, "p50_ms")[0]
    assert dice.measure.limit == pytest.approx(96.0)
    assert dice.staircase[-1] == pytest.approx((40, 96.5))
