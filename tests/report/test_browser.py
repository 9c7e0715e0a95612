"""The page in a real browser: silent, offline, whole at any width, legible in the dark, complete on paper."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest


@pytest.fixture(autouse=True)
def opened(chromium, page_file: Path) -> None:
    chromium.look()
    chromium.open(page_file)


def test_it_says_nothing_and_asks_for_nothing(chromium, page_file: Path) -> None:
    loud = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [e for e in chromium.events if e["method"] in loud] == []
    asked = [e["params"]["request"]["url"] for e in chromium.events if e["method"] == "Network.requestWillBeSent"]
    assert page_file.resolve().as_uri() in asked
    assert all(url.startswith("data:") or url == page_file.resolve().as_uri() for url in asked)
    assert chromium.evaluate("document.compatMode") == "CSS1Compat"


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_nothing_sticks_out(chromium, width: int) -> None:
    chromium.look(width, 800)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    cut = chromium.evaluate(
        "[...document.querySelectorAll('p, li, dd, h1, h2, h3, figcaption')].filter(e => e.scrollWidth > e.clientWidth "
        "+ 1 && getComputedStyle(e).display !== 'inline').map(e => e.textContent.slice(0, 60))"
    )
    assert cut == []


def test_the_frames_are_seen(chromium, tmp_path: Path) -> None:
    """References to the one picture of a frame are resolved: the drawing is not black."""
    box = chromium.evaluate(
        "(b => [b.left, b.top + scrollY, b.width, b.height])"
        "(document.querySelector('.frames svg').getBoundingClientRect())"
    )
    chromium.screenshot(tmp_path / "frame.png", int(box[1]), int(box[3]))
    image = cv2.imread(str(tmp_path / "frame.png"))
    assert image is not None
    part = image[:, int(box[0]) : int(box[0] + box[2])]
    gray = part[(part.max(2) - part.min(2)) < 12]
    assert 20 < gray.mean() < 220
    coloured = (part.max(2).astype(int) - part.min(2)) > 60
    assert 0.001 < coloured.mean() < 0.2


def test_light_dark_and_paper(chromium) -> None:
    grounds = {}
    for scheme, media in (("light", ""), ("dark", ""), ("dark", "print")):
        chromium.look(scheme=scheme, media=media)
        grounds[scheme, media] = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds["light", ""] == grounds["dark", "print"] == "rgb(255, 255, 255)"
    assert grounds["dark", ""] == "rgb(20, 24, 29)"


def test_paper_has_everything(chromium, tmp_path: Path) -> None:
    """What is folded away on the screen is printed too."""
    seen = "[...document.querySelectorAll('details table')].map(t => t.checkVisibility())"
    assert chromium.evaluate(seen) == [False, False]
    chromium.look(media="print")
    assert chromium.evaluate(seen) == [True, True]
    chromium.look()
    chromium.pdf(tmp_path / "page.pdf")
    data = (tmp_path / "page.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 5


def test_the_keyboard_is_enough(chromium) -> None:
    where = "[document.activeElement.className, document.activeElement.getBoundingClientRect().top]"
    chromium.press_tab()
    name, top = chromium.evaluate(where)
    assert name == "skip"
    assert top >= 0
    seen = set()
    for _ in range(60):
        chromium.press_tab()
        seen.add(chromium.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
        style = "getComputedStyle(document.activeElement)"
        assert chromium.evaluate(f"parseFloat({style}.outlineWidth)") >= 2
    assert {"A.", "DIV.scroll", "SUMMARY."} <= seen


def test_everything_that_is_announced_has_a_name(chromium) -> None:
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    named = ("image", "table", "region", "link", "heading", "navigation", "main")
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    roles = {role for role, _ in found}
    assert {"image", "table", "region", "link", "heading", "navigation", "columnheader", "rowheader"} <= roles
    assert [role for role, name in found if role in named and not name and role != "main"] == []
