from __future__ import annotations

import io

import pytest

from edgeseg.commands.table import print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_aligned_text_that_is_never_cut():
    out = io.StringIO()
    long = "x" * 300
    print_table("Speed", ["name", "ms", "note"], [["a", "9.5", long], ["longer", "120.0", None]], file=out)
    assert out.getvalue().splitlines() == [
        "Speed",
        "name       ms  note",
        f"a         9.5  {long}",
        "longer  120.0  -",
    ]


def test_text_with_line_breaks_stays_in_its_row():
    out = io.StringIO()
    print_table("", ["a"], [["one\ntwo"]], file=out)
    assert out.getvalue() == "a\none two\n"


def test_a_terminal_gets_colour_and_brackets_survive(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    print_table("", ["command"], [["pip install 'edgeseg[onnx]'"]], styles=["green"], file=out)
    assert "\x1b[32m" in out.getvalue()
    assert "edgeseg[onnx]" in out.getvalue()


def test_an_empty_table_and_a_ragged_one():
    out = io.StringIO()
    print_table("", ["a", "b"], [], file=out)
    assert out.getvalue() == "a  b\n"
    with pytest.raises((ValueError, IndexError)):
        print_table("", ["a", "b"], [["only one"]], file=out)


def test_a_table_too_wide_for_the_terminal_goes_on_below_and_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    headings = ["artifact", *(f"figure {i}" for i in range(9))]
    rows = [["openvino-int8", *(f"{i}.25" for i in range(9))], ["onnx-fp32", *(f"{i}.75" for i in range(9))]]
    print_table("Wide", headings, rows, file=out)
    text = out.getvalue()
    assert text.count("Wide") == 1
    assert text.count("openvino-int8") == text.count("artifact") >= 2
    for i in range(9):
        assert f"figure {i}" in text
        assert f"{i}.25" in text
        assert f"{i}.75" in text
