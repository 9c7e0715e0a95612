"""What one fresh process of `tools/embedding_cost.py` does; prints one JSON object, imports nothing before its turn.

python tools/embedding_child.py import edgeseg:load
python tools/embedding_child.py frames BUNDLE RUNTIME PRECISION FRAMES
python tools/embedding_child.py reloads BUNDLE RUNTIME PRECISION RELOADS
python tools/embedding_child.py bare BUNDLE RUNTIME PRECISION RELOADS
"""

from __future__ import annotations

import sys
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_HEIGHT, FRAME_WIDTH = 540, 800
WARM_FRAMES = 200
WARM_RELOADS = 50
READINGS = 10

Reading = dict[str, float]


def memory() -> Reading:
    """Of this process in kB: resident, proportional (a shared page counts by its share) and its own (`anonymous`).

    Only the last one tells a leak: the first two also move when another process loads or frees the same library.
    """
    with open("/proc/self/smaps_rollup") as stream:  # noqa: PTH123 - pathlib is not imported before edgeseg is
        found = {line.split(":")[0]: line.split()[1] for line in stream}
    return {"rss_kb": float(found["Rss"]), "pss_kb": float(found["Pss"]), "own_kb": float(found["Anonymous"])}


def descriptors() -> Reading:
    """Open files and threads of this process."""
    from pathlib import Path

    return {"files": len([*Path("/proc/self/fd").iterdir()]) - 1, "threads": len([*Path("/proc/self/task").iterdir()])}


def trimmed() -> Reading:
    """Memory after what Python and the C library keep for later was given back."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory()


def import_time(target: str) -> object:
    """Import a module, and resolve the name after the colon: ms of it, and what came along."""
    before, start = memory(), perf_counter()
    module, _, name = target.partition(":")
    found = __import__(module)
    if name:
        getattr(found, name)
    taken = (perf_counter() - start) * 1e3
    return {"ms": taken, "modules": len(sys.modules), "before": before, "after": memory()}


def frames(bundle: str, runtime: str, precision: str, count: str) -> object:
    """Everything that a cold process does up to its first result, and the memory of it; then `count` more frames."""
    started, marks, memories = perf_counter(), {}, {"start": memory()}

    def mark(name: str) -> None:
        marks[name] = (perf_counter() - started) * 1e3
        memories[name] = memory()

    import edgeseg

    load = edgeseg.load
    mark("import")
    opened = edgeseg.open_bundle(bundle)
    mark("open")
    from edgeseg import plugins

    plugins.runtime(runtime).version()
    mark("engine")
    image = picture()
    mark("picture")
    with load(opened, runtime=runtime, precision=precision, threads=1) as segmenter:
        mark("load")
        segmenter(image)
        mark("first")
        for _ in range(WARM_FRAMES):
            segmenter(image)
        mark("warm")
        start = perf_counter()
        for _ in range(int(count)):
            segmenter(image)
        each = (perf_counter() - start) * 1e3 / max(int(count), 1)
        mark("frames")
        memories["trimmed"] = trimmed()
        return {"marks": marks, "memory": memories, "frame_ms": each, **descriptors()}


def reloads(bundle: str, runtime: str, precision: str, count: str) -> object:
    """Load, segment a frame, close, so many times."""
    import edgeseg

    opened, image = edgeseg.open_bundle(bundle), picture()

    def reload() -> None:
        with edgeseg.load(opened, runtime=runtime, precision=precision, threads=1) as segmenter:
            segmenter(image)

    return repeated(reload, int(count))


def bare(bundle: str, runtime: str, precision: str, count: str) -> object:
    """The same without edgeseg: the engine's own documented calls on the same file."""
    import edgeseg
    from edgeseg.plugins import FORMAT_OF

    artifacts = edgeseg.open_bundle(bundle).artifacts
    (found,) = (a for a in artifacts if (a.format, a.precision) == (FORMAT_OF[runtime], precision))
    return repeated(BARE[runtime]([file.path.read_bytes() for file in found.files]), int(count))


def repeated(act: Callable[[], None], count: int) -> object:
    """Memory, open files and threads over so many calls, after twice WARM_RELOADS that do not count."""
    for _ in range(WARM_RELOADS):
        act()
    first = trimmed()
    for _ in range(WARM_RELOADS):  # what was given back is asked for again
        act()
    readings, start = [{"reloads": 0, **memory(), **descriptors()}], perf_counter()
    for done in range(1, count + 1):
        act()
        if done % max(count // READINGS, 1) == 0:
            readings.append({"reloads": done, **memory(), **descriptors()})
    each = (perf_counter() - start) * 1e3 / count
    return {"readings": readings, "trimmed": [first, trimmed()], "reload_ms": each}


def picture() -> object:
    """A frame of noise, [540, 800] uint8, made without the import of numpy.random."""
    import numpy as np

    numbers = np.arange(FRAME_HEIGHT * FRAME_WIDTH, dtype=np.uint32) * np.uint32(2654435761)
    return (numbers >> np.uint32(24)).astype(np.uint8).reshape(FRAME_HEIGHT, FRAME_WIDTH)


def bare_onnxruntime(files: list[bytes]) -> Callable[[], None]:
    """One life of an onnxruntime session."""
    import numpy as np
    import onnxruntime

    def act() -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
        port = session.get_inputs()[0]
        session.run(None, {port.name: np.zeros(port.shape, np.float32)})

    return act


def bare_openvino(files: list[bytes]) -> Callable[[], None]:
    """One life of a model that OpenVINO compiled; the core stays."""
    import numpy as np
    import openvino

    core = openvino.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}

    def act() -> None:
        compiled = core.compile_model(core.read_model(model=files[0], weights=files[1]), "CPU", config)
        compiled.create_infer_request().infer([np.zeros(list(compiled.inputs[0].shape), np.float32)])

    return act


def bare_litert(files: list[bytes]) -> Callable[[], None]:
    """One life of a LiteRT interpreter."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    def act() -> None:
        interpreter = Interpreter(model_content=files[0], num_threads=1)
        interpreter.allocate_tensors()
        port = interpreter.get_input_details()[0]
        interpreter.set_tensor(port["index"], np.zeros(port["shape"], port["dtype"]))
        interpreter.invoke()

    return act


BARE = {"litert": bare_litert, "onnxruntime": bare_onnxruntime, "openvino": bare_openvino}
TASKS: dict[str, Callable[..., object]] = {"import": import_time, "frames": frames, "reloads": reloads, "bare": bare}


if __name__ == "__main__":
    result = TASKS[sys.argv[1]](*sys.argv[2:])
    import json

    print(json.dumps(result))
