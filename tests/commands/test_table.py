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
