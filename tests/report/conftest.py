"""A report of the shared bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.report.document import Document
from edgeseg.report.embedding import read_page

from ..chromium import chromium  # noqa: F401


@pytest.fixture(scope="session")
def page_file(bundle: Path, frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the shared bundle on its test frames, compared with its own report on the golden frames."""
    folder = tmp_path_factory.mktemp("reports")
    short = ("--rounds", "3", "--repeats", "2")
    for args in (
        ("report", bundle, *short, "-o", folder / "first.html"),
        ("report", bundle, *short, "--data", frames, "--diff", folder / "first.html", "-o", folder / "report.html"),
    ):
        result = CliRunner().invoke(main, [str(a) for a in args])
        assert result.exit_code == 0, result.output
    return folder / "report.html"


@pytest.fixture(scope="session")
def golden_file(page_file: Path) -> Path:
    """The report on the golden frames alone."""
    return page_file.with_name("first.html")


@pytest.fixture(scope="session")
def text(page_file: Path) -> str:
    """The page."""
    return read_page(page_file)[0]


@pytest.fixture(scope="session")
def document(page_file: Path) -> Document:
    """The document in it."""
    return read_page(page_file)[1]


@pytest.fixture(scope="session")
def golden_document(golden_file: Path) -> Document:
    """The document of the report on the golden frames."""
    return read_page(golden_file)[1]
