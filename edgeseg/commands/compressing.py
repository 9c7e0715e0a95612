"""What convert and distill share: a source made smaller, with its progress on the terminal and its proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg import plugins
from edgeseg.commands.progress import progress
from edgeseg.dataset import FrameFolder, read_folder
from edgeseg.errors import GateFailed
from edgeseg.preprocess import to_input
from edgeseg.types import Format, Session

if TYPE_CHECKING:
    from edgeseg.converters.compress import Compressed
    from edgeseg.converters.recipe import Recipe
    from edgeseg.converters.source import Source

unlabelled_option = click.option(
    "--unlabelled",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Frames folder without masks that the source teaches on too; repeatable.",
)


def work_folder(output: Path) -> Path:
    """Where the stages of a compression keep their state until it has ended well."""
    return output.with_name(f".{output.name}.work")


def compress_source(
    source: Source,
    recipe: Recipe,
    learn: FrameFolder,
    unlabelled: Sequence[Path],
    held: FrameFolder,
    folder: Path,
) -> Compressed:
    """Distill and prune as the recipe says, and print every stage.

    Raises:
        GateFailed: a distilled or pruned network is not both smaller and faster than the source, or one with zeros
            is no smaller download; what was trained stays in `folder`.
    """
    plugins.require("train", "distillation and pruning")
    from edgeseg.converters.quiet import quiet

    with quiet():
        from edgeseg.converters.compress import Frames, compress

    extra = [read_folder(path) for path in unlabelled]
    count = len(learn) + sum(len(f) for f in extra)
    click.echo(
        f"{count} frames to learn from, {len(held)} held frames; the state is kept in {folder}, "
        f"the same command goes on after a stop"
    )
    calibration = [to_input(s.read_frame(), source.preprocess) for s in learn.spread(8).samples]
    with ExitStack() as stack:
        compressed = compress(
            source,
            recipe,
            Frames([learn, *extra], held, calibration),
            folder,
            open_session,
            say=click.echo,
            report_pool=_pool_progress(stack),
        )
    proof = compressed.proof
    if (recipe.distill or recipe.prune) and not proof.faster:
        raise GateFailed(
            f"the result is not smaller and faster than {source.name}: {proof}; prune more, or take a smaller student "
            f"(the trained one is in {folder})"
        )
    if recipe.sparsify and not proof.lighter:
        raise GateFailed(f"the result is no smaller download than {source.name}: {proof}; raise the ratio")
    return compressed


def _pool_progress(stack: ExitStack) -> Callable[[int, int], None]:
    bars: list[Callable[[], None]] = []
    shown = 0

    def report(done: int, total: int) -> None:
        nonlocal shown
        if not bars:
            bars.append(stack.enter_context(progress("labelling", total)))
        for _ in range(done - shown):
            bars[0]()
        shown = done
        if done == total:
            stack.close()

    return report


def open_session(kind: Format, path: Path, threads: int | None = None) -> tuple[str, Session]:
    """Load a model file on the CPU with the runtime of its format; all cores where `threads` is None."""
    name = plugins.ENGINE_OF[kind]
    return name, plugins.runtime(name).load(path, device="cpu", threads=threads)
