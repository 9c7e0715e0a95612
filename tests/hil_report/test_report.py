"""What the page and the data say, against the records: every number, every verdict, nothing that is not there."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ..html_tree import Element, Tree


def tables(text: str) -> dict[str, list[list[str]]]:
    """Cells of every table by its name, headings first."""
    found = {}
    for region in Tree(text).root.all("div"):
        if region.attrs.get("role") == "region":
            rows = region.all("tr")
            found[region.attrs["aria-label"]] = [[_words(c) for c in row.all("th", "td")] for row in rows]
    return found


def _words(element: Element) -> str:
    return " ".join(element.words().replace("\xa0", " ").split())


@pytest.fixture(scope="module")
def whole(record_file, report):
    return report(record_file)


@pytest.fixture(scope="module")
def recorded(record_file):
    return [json.loads(line) for line in record_file.read_text().splitlines()]


def _step(recorded, board: str, name: str):
    return next(e for e in recorded if e["event"] == "step" and (e["board"], e["step"]) == (board, name))


def test_the_matrix_has_the_outcomes_and_the_reasons(whole, recorded):
    result, text, _ = whole
    assert result.exit_code == 0, result.output
    assert "1 of 2 passed, 1 failed: 1 bundle on 2 boards" in result.output
    (heading, first, second) = tables(text)["Results by board and bundle"]
    assert heading == ["Board", "tiny.edgeseg"]
    assert first[0] == "bench-pc"
    assert "✓ passed" in first[1]
    reason = next(e["reason"] for e in recorded if e["event"] == "bundle" and e["board"] == "cart")
    assert "✗ FAILED" in second[1]
    assert reason.endswith("expected at most 1e-06 ms")
    assert reason in second[1]


def test_latencies_on_the_page_follow_from_the_raw_samples_of_the_record(whole, recorded):
    _, text, data = whole
    rows = tables(text)["tiny.edgeseg: latency"]
    group, seen = "", 0
    for row in rows[1:]:
        if len(row) == 1:
            group = row[0]
            continue
        board = row[0].split(" fastest")[0]
        found = re.fullmatch(r"(\w+)-(\w+) on (\w+), cpu, 1 thread", group)
        assert found, group
        samples = next(
            s["infer_ms"]
            for s in _step(recorded, board, "bench")["samples"]
            if (s["format"], s["precision"], s["runtime"]) == found.groups()
        )
        assert len(samples) == int(row[7]) == 12
        for percent, shown in zip((50, 90, 99), row[2:5], strict=True):
            assert float(shown) == pytest.approx(np.percentile(samples, percent), rel=0.006)
        seen += 1
    assert seen == 2 * 4
    assert {f["samples_agree"] for r in data["results"] for f in r["figures"]} == {True}


def test_slower_by_is_against_the_fastest_board_of_the_same_artifact(whole):
    _, text, data = whole
    p50 = {(f["format"], f["precision"], r["board"]): f["p50_ms"] for r in data["results"] for f in r["figures"]}
    rows = iter(tables(text)["tiny.edgeseg: latency"][1:])
    artifact = ("", "")
    for row in rows:
        if len(row) == 1:
            artifact = tuple(row[0].split(" ")[0].split("-"))
            continue
        board = row[0].split(" fastest")[0]
        least = min(p50[(*artifact, b)] for b in ("bench-pc", "cart"))
        assert float(row[6].split(" ")[0]) == pytest.approx(p50[(*artifact, board)] / least, rel=0.006)


def test_limits_stand_beside_what_they_are_of(whole, recorded):
    _, text, _ = whole
    heading, good, bad = tables(text)["tiny.edgeseg: limits"]
    rows = _step(recorded, "bench-pc", "bench")["result"]["rows"]
    fastest = min(rows, key=lambda r: r["p50_ms"])
    assert good[1] == f"{fastest['format']}-{fastest['precision']}, {fastest['runtime']}"
    cells = dict(zip(heading, good, strict=True))
    assert re.fullmatch(r"[\d.]+ ✓ at most 5000", cells["p99, ms"])
    assert cells["Dice to the source"].endswith("✓ at least 0.5")
    assert cells["Frames/s"].endswith("no limit")
    assert cells["Soak: hottest, °C"].endswith("no limit")
    assert dict(zip(heading, bad, strict=True))["p99, ms"].endswith("✗ at most 1e-06")


def test_accuracy_memory_soak_and_overhead_are_those_of_the_record(whole, recorded):
    _, text, data = whole
    found = tables(text)
    heading, *rows = found["tiny.edgeseg: accuracy, memory, execution"]
    row = dict(zip(heading, rows[1], strict=True))
    artifact = rows[0][0].split(" ")[0]
    bench = _step(recorded, "bench-pc", "bench")["result"]["rows"]
    said = next(r for r in bench if f"{r['format']}-{r['precision']}" == artifact)
    assert float(row["Dice to the source"]) == pytest.approx(said["dice_source"], abs=5e-5)
    assert float(row["Memory, MB"]) == pytest.approx(said["peak_memory_mb"], rel=0.006)
    assert said["executed"]["provider"] in row["Ran in"]
    soak = _step(recorded, "bench-pc", "soak")["result"]
    heading, row, _ = found["tiny.edgeseg: soak"]
    cells = dict(zip(heading, row, strict=True))
    assert float(cells["p99, ms"]) == pytest.approx(soak["total"]["p99_ms"], rel=0.006)
    assert int(cells["Missed"]) == sum(w["missed"] for w in soak["windows"][1:])
    cost = next(e for e in recorded if e["event"] == "cost" and e["board"] == "bench-pc")
    heading, row, _ = found["Time and overhead"]
    assert float(dict(zip(heading, row, strict=True))["Overhead, s"]) == pytest.approx(cost["overhead_s"], rel=0.006)
    assert data["results"][0]["cost"]["overhead_s"] == cost["overhead_s"]


def test_boards_bundles_and_the_record_are_named_by_hash_and_version(whole, recorded, record_file):
    import hashlib

    _, text, data = whole
    facts = next(e["facts"] for e in recorded if e["event"] == "board")
    bundle = recorded[0]["bundles"][0]
    sha256 = hashlib.sha256(record_file.read_bytes()).hexdigest()
    words = " ".join(Tree(text).root.words().split())
    for expected in (
        facts["machine"],
        facts["board"]["kernel"],
        facts["engines"]["litert"],
        recorded[0]["run"],
        bundle["digest"],
        sha256,
        *bundle["files"].values(),
    ):
        assert expected in words
    assert data["records"][0]["sha256"] == sha256
    assert data["bundles"][0]["files"] == bundle["files"]
    assert "Nobody signed tiny.edgeseg." in words


def test_what_a_board_does_not_tell_is_not_readable_and_never_zero(events, write_record, report):
    for event in events:
        if event["event"] == "step" and event["step"] == "bench":
            telemetry = event["result"]["telemetry"]
            telemetry["spreads"].pop("temperature_c", None)
            telemetry["spreads"]["power_mw"] = {"least": 4500.0, "mean": 5000.0, "most": 7250.0, "count": 3}
            telemetry["throttled_share"] = 0.25 if event["board"] == "cart" else None
            telemetry["throttled_by"] = {"heat": 1} if event["board"] == "cart" else {}
    _, text, _ = report(write_record(events))
    heading, first, second = tables(text)["tiny.edgeseg: the board at work"]
    pc, cart = (dict(zip(heading, row, strict=True)) for row in (first, second))
    assert pc["Temperature, °C"] == "not readable"
    assert pc["Power, W"] == "4.50 to 7.25"
    assert pc["Throttled"] == "not readable"
    assert cart["Throttled"] == "25 % of the readings: heat"


def test_newest_counts_and_older_is_history(events, write_record, report):
    later = json.loads(json.dumps(events).replace('"at": "20', '"at": "21'))
    for event in later:
        if event["event"] == "board":
            event["facts"]["board"]["kernel"] = "9.9.9"
    result, text, data = report(write_record(later, "new", run="later"), write_record(events, "old", run="earlier"))
    assert result.exit_code == 0, result.output
    assert {r["run"] for r in data["results"]} == {"later"}
    assert {r["run"] for r in data["history"]} == {"earlier"}
    assert [r["run"] for r in data["records"]] == ["earlier", "later"]
    rows = tables(text)["tiny.edgeseg: earlier runs"]
    assert [row[0] for row in rows[1:]] == ["bench-pc", "cart"]
    assert "(now 9.9.9)" in rows[1][8]


def test_a_copy_of_a_record_is_no_second_run(events, write_record, report):
    half = next(n for n, e in enumerate(events) if e["event"] == "bundle") + 1
    _, _, data = report(write_record(events[:half], "copy"), write_record(events, "whole"))
    assert len(data["records"]) == 1
    assert len(data["results"]) == 2
    assert data["history"] == []


def test_two_machines_of_one_name_and_two_bundles_of_one_name_are_told_apart(events, write_record, report):
    other = json.loads(json.dumps(events))
    for event in other:
        if event["event"] == "board":
            event["facts"]["machine"] = "ffff0000ffff0000"
        for part in [event, *event.get("bundles", ())]:
            if "digest" in part:
                part["digest"] = "abcdef" + part["digest"][6:]
    _, text, data = report(write_record(events, "one", run="one"), write_record(other, "two", run="two"))
    machine = next(e["facts"]["machine"] for e in events if e["event"] == "board")
    digest = events[0]["bundles"][0]["digest"]
    assert {b["label"] for b in data["boards"]} == {
        f"bench-pc ({machine[:12]})",
        f"cart ({machine[:12]})",
        "bench-pc (ffff0000ffff)",
        "cart (ffff0000ffff)",
    }
    assert {b["label"] for b in data["bundles"]} == {
        f"tiny.edgeseg ({digest[:12]})",
        f"tiny.edgeseg (abcdef{digest[6:12]})",
    }
    assert len(data["results"]) == 4
    assert "4 of 8 pairs of a board and a bundle were never tried" in Tree(text).root.words()


def test_the_same_bundle_with_other_files_is_another_one(events, write_record, report):
    other = json.loads(json.dumps(events))
    files = other[0]["bundles"][0]["files"]
    files[next(iter(files))] = "0" * 64
    _, _, data = report(write_record(events, "one", run="one"), write_record(other, "two", run="two"))
    assert len(data["bundles"]) == 2
    assert len({b["label"] for b in data["bundles"]}) == 2
    assert data["history"] == []


def test_a_bundle_proven_twice_in_one_record_has_the_first_as_history(events, write_record, report):
    """As tests with limits of their own do: docs/pytest.md."""
    board = [e for e in events if e.get("board") == "cart"]
    begun = next(n for n, e in enumerate(board) if e["event"] == "fit")
    end = next(n for n, e in enumerate(board) if e["event"] == "bundle") + 1
    second = json.loads(json.dumps(board[begun:end]).replace('"at": "20', '"at": "21'))
    second[0]["limits"] = {"p99_ms": 77.0, "of_a_later_edgeseg": 1}
    second[-1] |= {"status": "passed", "reason": ""}
    _, _, data = report(write_record([*events[:-1], *second, events[-1]]))
    (newest,) = (r for r in data["results"] if r["board"] == "cart")
    assert (newest["status"], newest["limits"]["p99_ms"]) == ("passed", 77.0)
    assert [(r["board"], r["status"]) for r in data["history"]] == [("cart", "failed")]


def test_a_runner_that_was_killed_and_one_that_went_on(events, write_record, report):
    end = [e for e in events if e["event"] in ("cost", "bundle") and e["board"] == "cart"]
    torn = [e for e in events[:-1] if e not in end]
    path = write_record(torn, "killed")
    path.write_text(path.read_text() + '{"event": "bun')
    _, text, data = report(path)
    words = Tree(text).root.words()
    assert "1 of 2 passed, 1 not finished" in words
    assert "no end" in words
    assert "has a line that is no event" in words
    assert "tiny.edgeseg on cart did not come to its end: its figures are shown, and count for nothing." in words
    assert {r["board"]: r["status"] for r in data["results"]} == {"bench-pc": "passed", "cart": "unfinished"}
    slower = [row[6] for row in tables(text)["tiny.edgeseg: latency"] if row[0].startswith("cart ")]
    assert set(slower) == {"nothing to compare"}

    resumed = {**events[0], "event": "resumed", "at": "2199-01-01T00:00:00.000Z"}
    _, _, data = report(write_record([*torn, resumed, *end, events[-1]], "resumed"))
    (cart,) = (r for r in data["results"] if r["board"] == "cart")
    assert cart["status"] == "failed"
    assert [step["step"] for step in cart["steps"]] == ["deploy", "verify", "bench", "soak"]
    assert data["records"][0]["resumed"] == 1


def test_lost_rebooted_quarantined_and_exchanged_boards_are_listed(events, write_record, report):
    at = {"at": "2026-01-01T00:00:00.000Z", "board": "cart"}
    happened = [
        {"event": "lost", **at, "during": "tiny.edgeseg", "lost": 1, "reason": "no connection to cart"},
        {"event": "rebooted", **at, "bundle": "tiny.edgeseg"},
        {"event": "machine changed", **at, "before": "aa", "now": "bb"},
        {"event": "quarantine", **at, "lost": 3, "reason": "lost three times"},
        {"event": "board error", **at, "error": "BoardUnreachable", "reason": "gone for good"},
    ]
    _, text, data = report(write_record([*events[:-1], *happened, events[-1]]))
    rows = tables(text)["What happened to boards"][1:]
    assert [row[2] for row in rows] == [
        "connection lost",
        "rebooted",
        "another machine answered",
        "left alone for the rest of the run",
        "nothing more could be run",
    ]
    assert "no connection to cart" in rows[0][3]
    # What the other machine did does not count.
    assert [r["board"] for r in data["results"]] == ["bench-pc"]


def test_refused_unreachable_and_emulated_boards_say_so(events, write_record, report):
    for event in events:
        if event["event"] == "board" and event["board"] == "bench-pc":
            event["facts"]["emulation"] = "cgroup v1"
    first = events[0]
    for name in ("tiny", "gone"):
        first["boards"].append(name)
    digest = first["bundles"][0]["digest"]
    about = {"event": "bundle", "at": "2026-01-01T00:00:00.000Z", "bundle": "tiny.edgeseg", "digest": digest}
    added = [
        {**about, "board": "tiny", "status": "refused", "reason": "needs about 107 MB, tiny has 82 MB for it"},
        {**about, "board": "gone", "status": "error", "reason": "no connection to gone"},
    ]
    _, text, _ = report(write_record([*events[:-1], *added, events[-1]]))
    rows = {row[0]: row[1] for row in tables(text)["Results by board and bundle"]}
    assert rows["tiny"] == "⊘ refused needs about 107 MB, tiny has 82 MB for it"
    assert rows["gone"] == "! ERROR no connection to gone"
    assert "bench-pc emulated" in rows
    words = Tree(text).root.words()
    assert "Emulated, no hardware (cgroup v1): bench-pc." in words
    assert "tiny and gone never answered" in words


def test_percentiles_that_do_not_follow_from_their_samples_are_named(events, write_record, report):
    for event in events:
        if event["event"] == "step" and event["step"] == "bench" and event["board"] == "bench-pc":
            event["result"]["rows"][0]["p99_ms"] *= 0.5
            name = "{format}-{precision} on {runtime}".format(**event["result"]["rows"][0])
    _, text, _ = report(write_record(events))
    assert (
        f"tiny.edgeseg on bench-pc: the percentiles of {name}, cpu, 1 thread do not follow" in Tree(text).root.words()
    )


def test_a_folder_stands_for_all_records_below_it(events, write_record, report):
    later = json.loads(json.dumps(events).replace('"at": "20', '"at": "21'))
    folder = write_record(events, "nights/1", run="one").parents[1]
    write_record(later, "nights/2", run="two")
    _, _, data = report(folder)
    assert [record["run"] for record in data["records"]] == ["one", "two"]
    _, _, data = report(folder / "1", folder / "1" / "record.jsonl")
    assert len(data["records"]) == 1


def test_whatever_a_record_says_stays_text(events, write_record, report):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"
    untouched = ("event", "at", "status", "digest", "step", "machine", "path", "sha256")

    def spoil(value, key=""):
        if isinstance(value, dict):
            return {(hostile if key in ("engines", "left_out", "files") else k): spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        return hostile if isinstance(value, str) and key not in untouched else value

    lost = {"event": "lost", "at": hostile, "board": "cart", "reason": hostile}
    _, text, _ = report(write_record([spoil(event) for event in [*events[:-1], lost, events[-1]]]))
    root = Tree(text).root
    assert not root.all("script", "img")
    assert hostile in root.all("table")[0].words()
    assert not any(name.startswith("on") for e in root.all("td", "th", "svg", "a", "div", "span") for name in e.attrs)
    assert "49" not in [e.words() for e in root.all("h2")]


def test_the_page_needs_nothing_else_and_runs_nothing(whole):
    _, text, _ = whole
    root = Tree(text).root
    (policy,) = (e for e in root.all("meta") if e.attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attrs["content"]
    assert not root.all("script", "img", "iframe", "object", "embed")
    assert all(e.attrs["href"].startswith(("#", "data:")) for e in root.all("a", "link"))
    assert "url(" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert {e.attrs["href"][1:] for e in root.all("a")} <= set(ids)


def test_tables_and_pictures_can_be_read_aloud(whole):
    root = Tree(whole[1]).root
    for table in root.all("table"):
        assert [c.words().strip() for c in table.all("caption")] != [""]
        assert all(e.attrs.get("scope") in ("col", "row", "rowgroup") for e in table.all("th"))
    (figure,) = root.all("figure")
    (picture,) = (e for e in figure.all("div") if e.attrs.get("role") == "img")
    assert "bench-pc" in picture.attrs["aria-label"]
    assert "above the limit of 1e-06" in picture.attrs["aria-label"]
    levels = [int(e.tag[1]) for e in root.all("h1", "h2", "h3")]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_data_is_what_docs_say(whole):
    data = whole[2]
    assert data["schema"] == 1
    docs = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    section = docs.split("## `hil report --json`")[1].split("\n## ")[0]
    result = data["results"][0]
    for part in (data, data["records"][0], data["boards"][0], data["bundles"][0], result, result["figures"][0]):
        for key in part:
            assert f'"{key}"' in section or f"`{key}`" in section, key
