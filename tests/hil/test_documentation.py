"""docs/hil.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from edgeseg.boards.hil.environment import BoardEntry, Limits, Measures, read_environment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "hil.md").read_text()


def test_the_example_is_an_environment_with_every_key(tmp_path):
    (example,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "lab.toml").write_text(example)
    lab = read_environment(tmp_path / "lab.toml")
    assert lab.board("cart-1").measures.soak_minutes == 5.0
    for key in (*Limits.__struct_fields__, *Measures.__struct_fields__, *BoardEntry.__struct_fields__):
        assert re.search(rf"^{key} = ", example, re.MULTILINE) or key in ("limits", "measures"), key


def test_every_event_is_listed():
    sources = "".join(path.read_text() for path in (ROOT / "boards" / "hil").glob("*.py"))
    events = set(re.findall(r"(?:_write|station\.write)\(\s*\"([a-z ]+)\"", sources)) | {"run", "resumed"}
    assert len(events) >= 14
    for event in events:
        assert f"`{event}`" in TEXT, event
