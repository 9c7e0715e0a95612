"""The command lines of a run: what the entry of a board decides about them."""

from __future__ import annotations

import pytest

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.boards.hil.steps import Job, Place, bench_job, soak_job, verify_job

PLACE = Place("/work", "/work/bundle.edgeseg")
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
