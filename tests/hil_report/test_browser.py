"""The page in a real browser: silent, offline, whole at any width, in the dark and on paper."""

from __future__ import annotations

import re

import cv2
import pytest


@pytest.fixture(scope="module")
def page_file(record_file, tmp_path_factory, report):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report(record_file)[1])
    return path


@pytest.fixture(autouse=True)
def opened(chromium, page_file) -> None:
    chromium.look()
    chromium.open(page_file)


def test_it_says_nothing_and_asks_for_nothing(chromium, page_file):
    loud = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [e for e in chromium.events if e["method"] in loud] == []
    asked = [e["params"]["request"]["url"] for e in chromium.events if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith("data:") or url == page_file.resolve().as_uri() for url in asked)


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out(chromium, width):
    chromium.look(width, 800)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    cut = chromium.evaluate(
        "[...document.querySelectorAll('p, li, dd, h1, h2, h3, figcaption, .value, .name')].filter(e => "
        "e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')"
        ".map(e => e.textContent.slice(0, 60))"
    )
    assert cut == []


def test_lines_of_the_plot_are_drawn_where_their_figures_say(chromium, tmp_path):
    """The dot of the faster of two lines is left of the other; what is beyond its limit has another colour."""
    spots = chromium.evaluate(
        "[...document.querySelectorAll('.ranges .line')].map(l => "
        "[l.querySelector('.middle').getBoundingClientRect().x, +l.querySelector('.value data').value, "
        "l.classList.contains('beyond')])"
    )
    assert len(spots) == 8
    assert [s[0] for s in sorted(spots)] == [s[0] for s in sorted(spots, key=lambda s: s[1])]
    assert [beyond for *_, beyond in spots] == [False, True] * 4
    box = chromium.evaluate(
        "(b => [b.left, b.top + scrollY, b.width, b.height])(document.querySelector('.ranges').getBoundingClientRect())"
    )
    chromium.screenshot(tmp_path / "plot.png", int(box[1]), int(box[3]))
    image = cv2.imread(str(tmp_path / "plot.png")).astype(int)
    blue, orange = image[..., 0] - image[..., 2] > 80, image[..., 2] - image[..., 0] > 80
    assert blue.sum() > 100
    assert orange.sum() > 100


def test_light_dark_and_paper(chromium, tmp_path):
    chromium.look(scheme="dark")
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    chromium.look(scheme="dark", media="print")
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.evaluate("[...document.querySelectorAll('details table')].every(t => t.checkVisibility())")
    chromium.look()
    chromium.pdf(tmp_path / "page.pdf")
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes())) >= 3


def test_everything_that_is_announced_has_a_name(chromium):
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    roles = {role for role, _ in found}
    assert {"image", "table", "region", "link", "heading", "navigation", "columnheader", "rowheader"} <= roles
    named = ("image", "table", "region", "link", "heading", "navigation")
    assert [role for role, name in found if role in named and not name] == []
