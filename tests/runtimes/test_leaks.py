"""Reloads and frames leave nothing behind: memory, open files, threads, processes, folders.

Measured in fresh processes, by the memory that is theirs alone; `tools/embedding_cost.py` is the long version.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg.plugins import ENGINES

CHILD = Path(__file__).parents[2] / "tools" / "embedding_child.py"
# So many that a leak of 10 kB each is more than the tolerance below it, which is several times what was measured:
# up to 1008 kB as it is, which the C library keeps for later, and after malloc_trim up to 704, 56 and 112 kB. LiteRT's
# are one step, Python's table of interned strings, which doubles once.
RELOADS = {"litert": 400, "onnxruntime": 300, "openvino": 120}
TRIMMED_KB = {"litert": 1536.0, "onnxruntime": 512.0, "openvino": 512.0}
KEPT_KB = 4096.0
FRAMES = 2000
DRIFT_KB = 1024.0
FRAME_BYTES = 64
# Devices and libraries that an engine opens with its first load, and keeps.
ENGINE_FILES = 4
TIMEOUT_S = 300

engines = pytest.mark.parametrize("runtime", ENGINES)


def measured(*arguments: object) -> dict[str, object]:
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@engines
def test_reloads_leave_nothing(make_bundle, runtime, precision):
    found = measured("reloads", make_bundle().path, runtime, precision, RELOADS[runtime])
    first, last = found["readings"][0], found["readings"][-1]
    assert last["files"] == first["files"]
    assert last["threads"] == first["threads"]
    assert last["own_kb"] - first["own_kb"] < KEPT_KB
    before, after = found["trimmed"]
    assert after["own_kb"] - before["own_kb"] < TRIMMED_KB[runtime]


@engines
def test_frames_leave_nothing(make_bundle, runtime):
    found = measured("frames", make_bundle().path, runtime, "int8", FRAMES)
    assert found["memory"]["frames"]["own_kb"] - found["memory"]["warm"]["own_kb"] < DRIFT_KB


@engines
def test_a_frame_leaves_no_object(make_bundle, frame, runtime):
    with edgeseg.load(make_bundle(), runtime=runtime, precision="int8") as segmenter:
        for _ in range(50):
            segmenter(frame)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(500):
                segmenter(frame)
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()
    assert after - before < 500 * FRAME_BYTES


@engines
def test_a_closed_segmenter_is_freed_at_once(make_bundle, frame, runtime):
    """And not when the garbage collector comes by: an engine's memory is too much to wait for that."""
    bundle = make_bundle()
    gc.collect()
    gc.disable()
    try:
        with edgeseg.load(bundle, runtime=runtime, precision="int8") as segmenter:
            mask = segmenter(frame).mask
        known = weakref.ref(segmenter), weakref.ref(segmenter._session)
        del segmenter
        assert [reference() for reference in known] == [None, None]
    finally:
        gc.enable()
    assert mask.shape == frame.shape[:2]


@engines
def test_a_failed_load_leaves_nothing(make_bundle, runtime):
    """The engine refuses the file, again and again."""

    def spoil(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:8] + b"\xff" * 64 + content[72:] if path.suffix != ".bin" else content)

    bundle = make_bundle(spoil=spoil)
    files = open_files()
    for _ in range(20):
        with pytest.raises(edgeseg.InferenceError):
            edgeseg.load(bundle, runtime=runtime, precision="fp32")
    gc.collect()
    assert open_files() <= files + ENGINE_FILES


def test_isolated_reloads_leave_no_file_process_or_folder(make_bundle, frame, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bundle, masks = make_bundle(), []
    with edgeseg.load(bundle, runtime="litert", isolate=True) as segmenter:
        masks.append(segmenter(frame).mask)
    left = set(tmp_path.iterdir())
    files, processes = open_files(), children()
    for _ in range(5):
        with edgeseg.load(bundle, runtime="litert", isolate=True) as segmenter:
            masks.append(segmenter(frame).mask)
    assert open_files() == files
    assert children() == processes
    assert set(tmp_path.iterdir()) == left
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[str]:
    """Of all threads, those that ended and were not waited for included."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}
