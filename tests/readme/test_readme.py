"""Every block of the README is run, or at least understood by the commands it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgeseg import samples
from edgeseg.cli import COMMANDS, main

from ..command_lines import check_command_line

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def command_lines() -> list[str]:
    lines = []
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            joined = block.replace("\\\n", " ")
            lines += [line for line in joined.splitlines() if re.match(r"edgeseg \w", line)]
    return lines


def epilogs() -> list[str]:
    context = click.Context(main)
    texts = [main.get_command(context, name).epilog or "" for name in COMMANDS]
    return [m.strip() for text in texts for m in re.findall(r"edgeseg [a-z][^;]*", text)]


@pytest.mark.parametrize("line", [*command_lines(), *epilogs()])
def test_every_command_that_is_shown_exists_with_its_options(line: str) -> None:
    check_command_line(line)


def test_the_readme_shows_commands() -> None:
    assert len(command_lines()) >= 5


def test_the_python_block_runs(tmp_path: Path, bundle: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    (tmp_path / "head.edgeseg").symlink_to(bundle)
    frame = sorted((samples.FRAMES / "images").glob("*.png"))[0]
    (tmp_path / "frame.png").write_bytes(frame.read_bytes())
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mask.png").stat().st_size > 0
    assert len(done.stdout.split()) == 3


def test_every_link_to_a_file_has_its_file() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_recipe_of_the_documentation_shows_every_option_with_its_default(tmp_path: Path) -> None:
    from dataclasses import fields, replace

    from edgeseg.converters.models.edge_unet import EdgeUNetOptions
    from edgeseg.converters.recipe import Distill, Prune, Recipe, Sparsify, read_recipe

    (text,) = blocks(ROOT / "docs" / "recipe.md", "toml")
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    recipe = read_recipe(path)
    assert recipe.distill
    assert EdgeUNetOptions(**recipe.distill.options) == EdgeUNetOptions()
    shown = replace(recipe, distill=replace(recipe.distill, options={}))
    assert shown == Recipe(distill=Distill(), prune=Prune(ratio=0.5), sparsify=Sparsify())
    for section in (getattr(recipe, f.name) for f in fields(recipe)):
        for option in fields(section):
            assert option.name in text, f"{type(section).__name__}.{option.name} is not in docs/recipe.md"


def test_the_recipes_of_the_repository_are_valid() -> None:
    from edgeseg.converters.recipe import read_recipe

    for path in (*sorted((ROOT / "recipes").glob("*.toml")), samples.STUDENT_RECIPE):
        assert read_recipe(path).compresses

