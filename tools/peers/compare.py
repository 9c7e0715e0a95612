"""edgeseg's int8 against the default int8 of Olive and of plain NNCF: same source, same frames, same engines, one run.

See README.md beside this file, and `python tools/peers/compare.py --help`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import msgspec
from contest import Entry, Result, candidate, measure
from peers import PEERS, Peer, install, make, versions, write_frames
from verdict import Verdict, table, verdict_table, verdicts

from edgeseg import plugins
from edgeseg.boards.detect import describe
from edgeseg.bundle import open_bundle
from edgeseg.commands.candidates import Candidate
from edgeseg.commands.measuring import evaluation_frames
from edgeseg.commands.progress import progress
from edgeseg.dataset import FrameFolder, read_folder
from edgeseg.errors import BadInput, EdgesegError
from edgeseg.types import Artifact, Bundle, Format, Precision

_ROUNDS = 40


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Frames folder with masks and an index.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("build/peers"), show_default=True)
@click.option("--peer", "names", multiple=True, type=click.Choice([p.name for p in PEERS]), help="All by default.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=_ROUNDS, show_default=True, help="Turns of each model.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write every figure.")
def main(
    bundles: tuple[Path, ...],
    data: Path,
    work: Path,
    names: tuple[str, ...],
    threads: int,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Compare edgeseg's int8 with the default int8 of Olive and of plain NNCF.

    \b
    Example:  edgeseg convert head.safetensors --calibration frames -o head.edgeseg
              python tools/peers/compare.py head.edgeseg --data frames --json peers.json

    Further BUNDLES of the same task (pruned, distilled) may follow the first, whose fp32 ONNX is the source: the peers
    start from that file and from the calibration frames that its manifest records. They get an environment of their own
    (about 1.5 GB, some minutes the first time); what they make is measured here, on the same engines as edgeseg's.

    Exits 1 where an artifact of edgeseg is slower or less accurate than a peer's default on the same engine.
    """
    try:
        opened = [open_bundle(path) for path in bundles]
        source = fp32_onnx(opened[0])
        frames, calibration = evaluation_frames(data, None), calibration_frames(opened[0], data)
        work.mkdir(parents=True, exist_ok=True)
        work = work.resolve()
        click.echo(f"installing the peers in {work} (skipped where they are)", err=True)
        python = install(work)
        raw = write_frames(calibration, opened[0].preprocess, source.inputs[0].name, work)
        chosen = [peer for peer in PEERS if not names or peer.name in names]
        made = [(peer, make(peer, python, source.path, raw, work)) for peer in chosen]
        entries = [*own_entries(opened), *(peer_entry(peer, path, opened[0]) for peer, path in made)]
        results = contest(entries, frames, len(opened[0].classes), threads, rounds)
    except EdgesegError as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    found = verdicts(results, [sample.exam for sample in frames.samples])
    click.echo(f"{describe()}, {threads} thread(s), {len(frames)} frames of {data.name} {frames.split}\n")
    click.echo(f"{table(results)}\n\n{verdict_table(found)}\n")
    for peer in chosen:
        click.echo(f"{peer.name}: {peer.what}")
    if json_path:
        _write(json_path, results, found, frames, versions(python))
    defaults = {peer.name for peer in chosen if peer.default}
    sys.exit(0 if all(verdict.holds for verdict in found if verdict.theirs in defaults) else 1)


def fp32_onnx(bundle: Bundle) -> Artifact:
    """The artifact that the peers start from. Raises BadInput where the bundle has none."""
    for artifact in bundle.artifacts:
        if (artifact.format, artifact.precision) == (Format.ONNX, Precision.FP32):
            return artifact
    raise BadInput(f"{bundle.path.name} has no onnx-fp32 artifact, where the peers start: convert with --format onnx")


def calibration_frames(bundle: Bundle, data: Path) -> FrameFolder:
    """The frames that edgeseg calibrated with, by the manifest. Raises BadInput where `data` does not have them."""
    record = bundle.manifest.provenance.calibration
    folder = read_folder(data)
    folder = folder.select(record["split"]) if record.get("split") else folder
    folder = folder.spread(int(record.get("frames", len(folder))))
    if record.get("sha256") not in (None, folder.sha256()):
        raise BadInput(
            f"{data} does not give the {record.get('frames')} calibration frames of {bundle.path.name}: "
            f"use the folder it was converted with"
        )
    return folder


def own_entries(bundles: Sequence[Bundle]) -> list[Entry]:
    """The source's fp32 in ONNX Runtime and OpenVINO, then every int8 artifact for these engines."""
    runtimes = {Format.ONNX: "onnxruntime", Format.OPENVINO: "openvino"}
    entries = []
    for index, bundle in enumerate(bundles):
        for artifact in bundle.artifacts:
            exact = artifact.precision is Precision.FP32
            if artifact.format not in runtimes or (exact and index):
                continue
            name = f"{bundle.manifest.name} {artifact.name}"
            side, what = ("source", "fp32 source") if exact else ("edgeseg", "edgeseg convert")
            runtime = runtimes[artifact.format]
            entries.append(Entry(name, side, runtime, artifact.path, bundle.preprocess, what))
    # The first one is what all others are held against.
    return sorted(entries, key=lambda e: (e.side != "source", e.side == "source" and e.path.suffix != ".onnx"))


def peer_entry(peer: Peer, path: Path, bundle: Bundle) -> Entry:
    """What a peer made, which gets the source's preprocessing."""
    return Entry(peer.name, peer.name, peer.runtime, path, bundle.preprocess, peer.what, peer.default)


def contest(entries: Sequence[Entry], frames: FrameFolder, classes: int, threads: int, rounds: int) -> list[Result]:
    """Load all entries and measure them together."""
    with _loaded(entries, threads) as candidates, progress("frames", len(frames)) as advance:
        return measure(entries, candidates, frames, classes, rounds, advance)


@contextlib.contextmanager
def _loaded(entries: Sequence[Entry], threads: int) -> Iterator[list[Candidate]]:
    with contextlib.ExitStack() as stack:
        candidates = []
        for entry in entries:
            session = plugins.runtime(entry.runtime).load(entry.path, threads=threads)
            candidates.append(candidate(entry, stack.enter_context(session), threads))
        yield candidates


def _write(
    path: Path, results: Sequence[Result], found: Sequence[Verdict], frames: FrameFolder, tools: dict[str, str]
) -> None:
    content = {
        "schema": 1,
        "board": describe(),
        "data": f"{frames.path.name} {frames.split}".strip(),
        "frames": [{"file": sample.name, "exam": sample.exam} for sample in frames.samples],
        "peers": tools,
        "results": [asdict(result) for result in results],
        "verdicts": [asdict(v) | {"faster": v.faster, "no_less_accurate": v.no_less_accurate} for v in found],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")


if __name__ == "__main__":
    main()
