"""The command lines of a run: what the entry of a board decides about them."""

from __future__ import annotations

import msgspec
import pytest

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.boards.hil.steps import Job, Place, bench_job, joined_results, soak_job, verify_job
from edgeseg.boards.sampler import Spread, Summary
from edgeseg.errors import BoardError

PLACE = Place("/station", "/station/bundle.edgeseg")
ROW = {"runtime": "litert", "precision": "int8", "device": "cpu"}


def jobs(measures: Measures, profile: str) -> list[Job]:
    return [
        verify_job(PLACE, ("litert",), measures, profile),
        bench_job(PLACE, ("litert",), measures, profile, warm_up=True),
        bench_job(PLACE, ("litert",), measures, profile),
        soak_job(PLACE, "golden/1.png", ROW, measures, Limits(), profile),
    ]


@pytest.mark.parametrize(
    ("threads", "profile", "expected"),
    [
        (None, "", "--threads 1"),
        (4, "", "--threads 4"),
        (None, "rk3588", "--profile rk3588"),
        (2, "rk3588", "--profile rk3588 --threads 2"),
    ],
)
def test_the_profile_of_an_entry_decides_unless_threads_are_given(
    threads: int | None, profile: str, expected: str
) -> None:
    for job in jobs(Measures(threads=threads), profile):
        words = " ".join(job.words)
        assert expected in words
        assert words.count("--threads") == expected.count("--threads")
        assert words.count("--profile") == expected.count("--profile")


def result(row: str, telemetry: Summary | None) -> dict[str, object]:
    return {"rows": [row], "board": "x", "telemetry": None if telemetry is None else msgspec.to_builtins(telemetry)}


def test_the_telemetry_of_engines_that_were_measured_in_turn_is_of_all_of_them() -> None:
    cool = Summary(10, 1.0, {"temperature_c": Spread(40.0, 45.0, 50.0, 10)}, 0.0, {}, ("schedutil",), 0.002)
    spreads = {"temperature_c": Spread(50.0, 75.0, 91.5, 30), "power_mw": Spread(1.0, 2.0, 3.0, 30)}
    hot = Summary(30, 3.0, spreads, 0.5, {"soc": 15}, ("schedutil", "powersave"), 0.004)
    both = joined_results(result("a", cool), result("b", hot))
    assert both["rows"] == ["a", "b"]
    assert msgspec.convert(both["telemetry"], Summary) == Summary(
        samples=40,
        seconds=4.0,
        spreads={"temperature_c": Spread(40.0, 67.5, 91.5, 40), "power_mw": Spread(1.0, 2.0, 3.0, 30)},
        throttled_share=0.375,
        throttled_by={"soc": 15},
        governors=("schedutil", "powersave"),
        cost=0.0035,
    )
    assert joined_results(result("a", None), result("b", hot))["telemetry"] == result("b", hot)["telemetry"]
    assert joined_results(result("a", None), result("b", None))["telemetry"] is None
    with pytest.raises(BoardError, match="telemetry"):
        joined_results(result("a", None), {"rows": [], "telemetry": {"samples": "many"}})
