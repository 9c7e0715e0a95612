"""The record of a run: whole whatever kills its writer, and a base to go on from."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgeseg.boards.hil.junit import write_junit
from edgeseg.boards.hil.station import Station, check_same, read_record
from edgeseg.errors import BadInput

RUN = {
    "schema": 1,
    "run": "r",
    "boards": ["b"],
    "bundles": [{"name": "x", "digest": "d"}, {"name": "y", "digest": "e"}],
}
STEP = {"board": "b", "bundle": "x", "digest": "d", "seconds": 1.5, "reason": "", "result": None}


def write(path: Path) -> Path:
    with Station(path) as station:
        station.write("run", **RUN)
        station.write("step", **STEP, step="verify", status="passed")
        station.write("step", **{**STEP, "reason": "too slow"}, step="bench", status="failed")
        station.write("bundle", board="b", bundle="x", digest="d", status="failed", reason="bench: too slow")
        station.write("bundle", board="b", bundle="y", digest="e", status="error", reason="unplugged")
    return path


def test_a_line_is_there_when_the_call_returns(tmp_path):
    with Station(tmp_path / "deep" / "record.jsonl") as station:
        station.write("run", **RUN)
        assert read_record(station.path).run == "r"


def test_what_is_done_is_all_but_errors(tmp_path):
    done = read_record(write(tmp_path / "r")).done("b")
    assert set(done.steps) == {("d", "verify"), ("d", "bench")}
    assert set(done.bundles) == {"d"}
    assert not read_record(tmp_path / "r").done("another").steps


def test_a_torn_line_is_passed_over_and_the_next_is_whole(tmp_path):
    path = write(tmp_path / "r")
    path.write_bytes(path.read_bytes() + b'{"event":"step","boa')
    with Station(path, resume=True) as station:
        station.write("resumed")
    record = read_record(path)
    assert record.torn == 1
    assert [e["event"] for e in record.events][-1] == "resumed"
    assert record.done("b").bundles


def test_another_machine_begins_anew(tmp_path):
    path = write(tmp_path / "r")
    with Station(path, resume=True) as station:
        station.write("machine changed", board="b")
    assert not read_record(path).done("b").steps


def test_a_record_is_never_overwritten(tmp_path):
    with pytest.raises(BadInput, match=r"is there already: choose another -o, or go on with it"):
        Station(write(tmp_path / "r"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a station record"),
        ('{"event":"step"}\n', "is not a station record"),
        ('{"event":"run","schema":9,"run":"r","boards":[],"bundles":[]}\n', "has schema 9, this edgeseg reads 1"),
    ],
)
def test_what_is_no_record(text, message, tmp_path):
    (tmp_path / "r").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_record(tmp_path / "r")


def test_only_the_same_bundles_and_boards_go_on(tmp_path):
    path = write(tmp_path / "r")
    record = read_record(path)
    check_same(record, path, {"x": "d", "y": "e"}, ["b"])
    with pytest.raises(BadInput, match=r"x is not the bundle of that name"):
        check_same(record, path, {"x": "other"}, ["b"])
    with pytest.raises(BadInput, match=r"is of the boards b, not the same as now: b, c"):
        check_same(record, path, {"x": "d"}, ["c"])


def test_junit_can_be_read_whatever_a_board_said(tmp_path):
    path = tmp_path / "r"
    with Station(path) as station:
        station.write("run", **RUN)
        station.write("bundle", board="b", bundle="x", digest="d", status="error", reason="\x1b[31mpanic\x00 ü\x1b[0m")
    write_junit(read_record(path), tmp_path / "junit.xml")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert next(root.iter("error")).get("message") == "?[31mpanic? ü?[0m"


def test_junit_has_a_case_for_every_step_and_bundle(tmp_path):
    write_junit(read_record(write(tmp_path / "r")), tmp_path / "junit.xml")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    found = {case.get("name"): [(child.tag, child.get("message")) for child in case] for case in root.iter("testcase")}
    assert found == {"x: verify": [], "x: bench": [("failure", "too slow")], "y": [("error", "unplugged")]}
