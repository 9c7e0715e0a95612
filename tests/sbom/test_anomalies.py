"""The list of known anomalies, and which versions an entry concerns."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from edgeseg.sbom.anomalies import known_anomalies
from edgeseg.sbom.packages import _table

KINDS = {"accuracy", "crash", "hang", "integrity", "silent-fallback", "latency", "install"}


def test_every_entry_is_whole() -> None:
    packages = {name for part in _table().values() for name in part}
    anomalies = known_anomalies()
    assert len(anomalies) >= 20
    assert [name for name, count in Counter(a.id for a in anomalies).items() if count > 1] == []
    for anomaly in anomalies:
        assert re.fullmatch(r"EDGESEG-[A-Z-]+-\d+", anomaly.id)
        assert anomaly.package in packages
        assert anomaly.kind in KINDS
        assert anomaly.guard or anomaly.advice
        assert all((anomaly.what, anomaly.effect, anomaly.source))
        assert ("measured" in anomaly.source) == bool(anomaly.seen)


@pytest.mark.parametrize(
    ("introduced", "fixed", "version", "status"),
    [
        ("", "", "1.31.1", "affected"),
        ("", "", "1.30.0", "unknown"),
        ("", "", "", "unknown"),
        ("", "1.32", "1.30.0", "affected"),
        ("", "1.32", "1.32.0", "unaffected"),
        ("", "1.32", "1.100", "unaffected"),
        ("1.20", "1.32", "1.19.9", "unaffected"),
        ("1.20", "1.32", "1.20.0+cpu", "affected"),
    ],
)
def test_the_status_of_a_version(introduced: str, fixed: str, version: str, status: str) -> None:
    anomaly = replace(known_anomalies()[0], seen=("1.31.1",), introduced=introduced, fixed=fixed)
    assert anomaly.status(version) == status


def test_older_versions_that_a_bundle_admits_count() -> None:
    anomaly = replace(known_anomalies()[0], seen=(), introduced="", fixed="1.25")
    assert not anomaly.concerns("1.31.1")
    assert anomaly.concerns("1.31.1", lowest="1.20")
    assert not anomaly.concerns("1.31.1", lowest="1.25")
    assert anomaly.range == "vers:pypi/<1.25"
