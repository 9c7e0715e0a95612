"""What is wrong with records or files: one line, and nothing half-written."""

from __future__ import annotations

import json

import pytest


def refused(invoke, *words, code=1):
    result = invoke("hil", "report", *words)
    assert result.exit_code == code, result.output
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a station record, expected JSON Lines that begin with a run"),
        ("no record\n", "is not a station record"),
        ('{"event": "step"}\n', "is not a station record"),
        ('{"event": "run", "schema": 2}\n', "has schema 2, this edgeseg reads 1: upgrade edgeseg"),
        ('{"event": "run", "schema": 1}\n', "is damaged: its boards and bundles are not named"),
    ],
)
def test_no_record(text, message, invoke, tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text(text)
    assert message in refused(invoke, path, "-o", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_nothing_there(invoke, tmp_path):
    (tmp_path / "empty").mkdir()
    said = refused(invoke, tmp_path / "empty", "-o", tmp_path / "r.html")
    assert "empty has no record.jsonl, expected a folder that `edgeseg hil run` wrote" in said
    assert "does not exist" in refused(invoke, tmp_path / "nowhere", "-o", tmp_path / "r.html", code=2)
    assert "Missing argument" in refused(invoke, "-o", tmp_path / "r.html", code=2)
    assert "Missing option '-o'" in refused(invoke, tmp_path, code=2)


def test_a_record_in_which_nothing_came_to_an_end(events, write_record, invoke, tmp_path, report):
    begun = write_record([e for e in events if e["event"] not in ("bundle", "end")], "begun", run="begun")
    said = refused(invoke, begun, "-o", tmp_path / "r.html")
    assert "no bundle came to an end in" in said
    assert "go on with it (edgeseg hil run --resume)" in said
    # Beside a record that has something to compare it is listed.
    _, _, data = report(begun, write_record(events, "whole", run="whole"))
    assert {record["run"]: bool(record["ended"]) for record in data["records"]} == {"begun": False, "whole": True}


@pytest.mark.parametrize(
    ("event", "key", "value", "message"),
    [
        ("step", "status", 7, "(step): Expected `str`, got `int` - at `$.status`"),
        ("bundle", "status", "perfect", "(bundle): Invalid enum value 'perfect'"),
        ("board", "facts", [], "(board): Expected `object`, got `array`"),
        ("cost", "overhead_s", "long", "(cost): Expected `float`, got `str`"),
    ],
)
def test_a_damaged_event_is_named(event, key, value, message, events, write_record, invoke, tmp_path):
    number = next(n for n, e in enumerate(events, 1) if e["event"] == event)
    events[number - 1][key] = value
    said = refused(invoke, write_record(events), "-o", tmp_path / "r.html")
    assert f"is damaged: event {number} {message}" in said


def test_a_time_that_cannot_be_is_damage(events, write_record, invoke, tmp_path):
    bench = next(e for e in events if e["event"] == "step" and e["step"] == "bench")
    bench["result"]["rows"][0]["p50_ms"] = 0
    said = refused(invoke, write_record(events), "-o", tmp_path / "r.html")
    assert "is damaged: the result of bench: Expected `float` > 0.0" in said


def test_what_cannot_be_written(record_file, invoke, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/r.html cannot be written" in refused(invoke, record_file, "-o", tmp_path / "file" / "r.html")
    said = refused(invoke, record_file, "-o", tmp_path / "r.html", "--json", tmp_path / "file" / "r.json")
    assert "file/r.json cannot be written" in said
    (tmp_path / "folder").mkdir()
    assert "is a directory" in refused(invoke, record_file, "-o", tmp_path / "folder", code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_record_is_never_written_over(record_file, invoke):
    before = record_file.read_bytes()
    for words in (("-o", record_file), ("-o", record_file.with_suffix(".html"), "--json", record_file)):
        assert "is one of the records: choose another file" in refused(invoke, record_file, *words)
    assert record_file.read_bytes() == before
    assert not record_file.with_suffix(".html").exists()


def test_an_older_page_stays_until_the_new_one_is_whole(record_file, invoke, tmp_path, monkeypatch):
    page = tmp_path / "r.html"
    page.write_text("older")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeseg.durable.fsync", full)
    assert "r.html cannot be written: No space left on device" in refused(invoke, record_file, "-o", page)
    assert page.read_text() == "older"
    assert list(tmp_path.iterdir()) == [page]


def test_values_of_json_lines_that_are_no_objects_are_torn_lines(events, write_record, report):
    path = write_record(events)
    path.write_text(path.read_text() + "7\n[]\nnull\n" + json.dumps({"no": "event"}) + "\n")
    _, _, data = report(path)
    assert data["records"][0]["torn"] == 4
