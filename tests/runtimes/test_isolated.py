"""Engines in processes of their own: the same masks, and whatever dies, hangs or swells there is a typed error here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeseg
from edgeseg import plugins
from edgeseg.errors import BadInput, EngineCrashed, EngineTimeout, InferenceError, MissingDependency, NoSuchDevice
from edgeseg.runtimes import isolated_process, sandbox
from edgeseg.runtimes.isolated import IsolatedSession, IsolatedWorker
from edgeseg.runtimes.isolated_process import EngineProcess
from edgeseg.runtimes.opening import open_session
from edgeseg.runtimes.profile import profile
from edgeseg.runtimes.runtime import read_file
from edgeseg.testing import PROBE
from edgeseg.types import Bundle, Format, Model, Precision

from .conftest import INT8, SUFFIXES

MakeBundle = Callable[..., Bundle]
SMALL = sandbox.Limits(memory_mb=512, load_s=30, run_s=2)
PROMPT_S = 1.0


def probe(runtime: str) -> Path:
    return PROBE / f"probe{SUFFIXES[plugins.FORMAT_OF[runtime]]}"


def image(session: Any) -> dict[str, np.ndarray]:
    pixels = np.load(PROBE / "input.npy")
    spec = session.inputs[0]
    return {spec.name: np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if spec.layout == "NHWC" else pixels}


@pytest.fixture
def worker() -> Iterator[IsolatedWorker]:
    with IsolatedWorker("onnxruntime", SMALL) as made:
        yield made


def onnx_model(nodes: list[Any], outputs: list[str], initializers: list[Any] | None = None, side: Any = 4) -> Model:
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, side, 4])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "hostile", inputs, results, initializers or [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Model("hostile", Format.ONNX, (made.SerializeToString(),))


def endless() -> Model:
    """A Loop of 2^62 trips."""
    from onnx import TensorProto, helper

    counter = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    go_in = helper.make_tensor_value_info("go_in", TensorProto.BOOL, [])
    go_out = helper.make_tensor_value_info("go_out", TensorProto.BOOL, [])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Sin", ["x"], ["y"])],
        "body", [counter, go_in, x], [go_out, y],
    )  # fmt: skip
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [1 << 62])
    return onnx_model([helper.make_node("Loop", ["trips", "", "image"], ["logits"], body=body)], ["logits"], [trips])


def bomb(floats: int) -> Model:
    """A tensor of many floats, whose size depends on the input, so that it is made when the model runs."""
    from onnx import TensorProto, helper

    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [floats >> 10, 1 << 10])
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["zero"], keepdims=0),
        helper.make_node("Expand", ["zero", "shape"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["logits"], keepdims=0),
    ]
    return onnx_model(nodes, ["logits"], [shape])


def feeds() -> dict[str, np.ndarray]:
    return {"image": np.zeros((1, 1, 4, 4), np.float32)}


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def descriptors(pid: int | str) -> set[Path]:
    return set(Path(f"/proc/{pid}/fd").iterdir())


def available_mb() -> float:
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found
    return int(found.group(1)) / 1024


# What works


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
@pytest.mark.parametrize("runtime", plugins.ENGINES)
def test_masks_and_execution_are_those_of_the_same_engine_in_this_process(
    runtime: str, precision: Precision, make_bundle: MakeBundle, frame: np.ndarray
) -> None:
    bundle = make_bundle((plugins.FORMAT_OF[runtime], precision))
    with (
        edgeseg.load(bundle, runtime=runtime) as here,
        edgeseg.load(bundle, runtime=runtime, isolate=True) as there,
    ):
        for pixels in (frame, np.ascontiguousarray(frame[::-1]), frame):
            expected, found = here(pixels), there(pixels)
            np.testing.assert_array_equal(found.mask, expected.mask)
            assert found.timing.infer > 0
        assert there.execution == here.execution
        assert there.device == here.device
    with pytest.raises(InferenceError, match="closed"):
        there(frame)


def test_the_fastest_of_all_artifacts_and_the_fake_one_can_be_isolated_too(
    make_bundle: MakeBundle, frame: np.ndarray, mask: np.ndarray
) -> None:
    bundle = make_bundle()
    with edgeseg.load(bundle, isolate=SMALL) as segmenter:
        assert (segmenter(frame).mask == mask).mean() > 0.9
    with edgeseg.load(bundle, runtime="fake", isolate=SMALL) as segmenter:
        assert segmenter(frame).mask.shape == mask.shape


def test_one_worker_loads_one_model_after_the_other(worker: IsolatedWorker) -> None:
    pid = worker.pid
    for name in ("probe.onnx", "probe-int8.onnx"):
        with worker.load(read_file((PROBE if name == "probe.onnx" else INT8) / name), threads=1) as session:
            (output,) = session.run(image(session)).values()
            assert output.shape == (1, 2, 24, 32)
            with pytest.raises(InferenceError, match="open session"):
                worker.load(PROBE / "probe.onnx")
    assert worker.pid == pid
    assert worker.alive


def test_outputs_stay_as_they_are_over_later_runs(worker: IsolatedWorker) -> None:
    with worker.load(PROBE / "probe.onnx") as session:
        one = session.run(image(session))["logits"]
        copy = one.copy()
        session.run({"image": np.zeros((1, 3, 24, 32), np.float32)})
        np.testing.assert_array_equal(one, copy)


def test_shapes_that_are_not_known_beforehand(worker: IsolatedWorker) -> None:
    from onnx import helper

    model = onnx_model([helper.make_node("Concat", ["image"] * 3, ["logits"], axis=1)], ["logits"], side="height")
    with worker.load(model) as session:
        assert session.inputs[0].shape == (1, 1, -1, 4)
        for height in (4, 400, 2, 400, 4000):
            pixels = np.random.default_rng(height).random((1, 1, height, 4), np.float32)
            (found,) = session.run({"image": pixels}).values()
            np.testing.assert_array_equal(found, np.concatenate([pixels] * 3, 1))


def test_feeds_are_checked_here(worker: IsolatedWorker) -> None:
    with worker.load(PROBE / "probe.onnx") as session, pytest.raises(BadInput, match="has shape"):
        session.run({"image": np.zeros((1, 3, 2, 2), np.float32)})


def test_errors_of_the_engine_have_the_types_they_have_in_this_process(worker: IsolatedWorker) -> None:
    with pytest.raises(NoSuchDevice, match="tpu"):
        worker.load(PROBE / "probe.onnx", device="tpu")
    with pytest.raises(BadInput, match="threads is 0"):
        worker.load(PROBE / "probe.onnx", threads=0)
    with pytest.raises(InferenceError, match=r"cannot load probe\.tflite"):
        worker.load(PROBE / "probe.tflite")
    with pytest.raises(InferenceError, match="does not exist"):
        worker.load(PROBE / "nothing.onnx")
    broken = replace(read_file(PROBE / "probe.onnx"), files=(b"\x08\x09" * 40,))
    with pytest.raises(InferenceError, match="onnxruntime cannot load"):
        worker.load(broken)
    with worker.load(PROBE / "probe.onnx") as session:
        assert session.run(image(session))


def test_openvino_is_not_given_a_raw_onnx() -> None:
    with (
        IsolatedWorker("openvino", SMALL) as worker,
        pytest.raises(InferenceError, match=r"openvino cannot load probe\.onnx"),
    ):
        worker.load(PROBE / "probe.onnx")


def test_an_engine_that_is_not_installed_comes_with_its_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = isolated_process._START.replace("serve(setup", 'sys.modules["openvino"] = None\nserve(setup')
    monkeypatch.setattr(isolated_process, "_START", hidden)
    with IsolatedWorker("openvino", SMALL) as worker, pytest.raises(MissingDependency, match=r"edgeseg\[openvino\]"):
        worker.load(PROBE / "probe.xml")


def test_times_per_layer_are_for_this_process_only(worker: IsolatedWorker) -> None:
    with worker.load(PROBE / "probe.onnx") as session, pytest.raises(InferenceError, match="not profiled"):
        profile(session, image(session), 1)


def test_limits_have_to_be_more_than_nothing() -> None:
    with pytest.raises(BadInput, match="run_s is 0"):
        sandbox.Limits(run_s=0)


# What goes wrong


@pytest.mark.parametrize("kill", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_dies_in_the_middle_of_a_run_is_an_error_and_stays_one(kill: signal.Signals) -> None:
    with IsolatedWorker("onnxruntime", sandbox.Limits(run_s=30)) as worker:
        session = worker.load(endless())
        threading.Timer(0.3, os.kill, (worker.pid, kill)).start()
        start = time.monotonic()
        with pytest.raises(EngineCrashed, match=rf"onnxruntime crashed \({kill.name}\) while running hostile"):
            session.run(feeds())
        assert time.monotonic() - start < 0.3 + PROMPT_S
        assert gone(worker.pid)
        assert not worker.alive
        for call in (lambda: session.run(feeds()), session.execution, lambda: worker.load(PROBE / "probe.onnx")):
            with pytest.raises(InferenceError, match="crashed"):
                call()
        session.close()


def test_a_crash_comes_with_the_last_words_of_the_child() -> None:
    with IsolatedWorker("onnxruntime", SMALL) as worker:
        session = worker.load(PROBE / "probe.onnx")
        Path(f"/proc/{worker.pid}/fd/2").write_bytes(b"terminate called\n\x1b[31mwhat(): something\n")
        os.kill(worker.pid, signal.SIGABRT)
        with pytest.raises(EngineCrashed, match=r"SIGABRT.* \[31mwhat\(\): something"):
            session.run(image(session))


def test_a_run_without_end_is_ended_within_a_second_of_its_deadline() -> None:
    with IsolatedWorker("onnxruntime", replace(SMALL, run_s=0.5)) as worker:
        session = worker.load(endless())
        start = time.monotonic()
        with pytest.raises(EngineTimeout, match=r"took longer than the limit of 0.5 s while running hostile"):
            session.run(feeds())
        assert time.monotonic() - start < 0.5 + PROMPT_S
        assert gone(worker.pid)
        with pytest.raises(InferenceError, match="load the artifact again"):
            session.run(feeds())


def test_who_waits_with_a_question_while_the_child_is_ended_is_told_so(worker: IsolatedWorker) -> None:
    """What an engine executes may be asked for while another thread waits for a run."""
    with worker.load(probe("onnxruntime")) as session:
        feeds = image(session)
        os.kill(worker.pid, signal.SIGSTOP)
        found: list[BaseException] = []

        def ask(question: Callable[[], object]) -> None:
            try:
                question()
            except BaseException as error:
                found.append(error)

        threads = [threading.Thread(target=ask, args=(q,)) for q in (lambda: session.run(feeds), session.execution)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join(10)
    assert [type(error) for error in found] == [EngineTimeout, InferenceError]


def test_a_stopped_child_ends_loading_too() -> None:
    with IsolatedWorker("onnxruntime", SMALL) as worker:
        assert worker.version
        worker._process.limits = replace(SMALL, load_s=0.5)
        os.kill(worker.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(EngineTimeout, match=r"while loading probe\.onnx"):
            worker.load(PROBE / "probe.onnx")
        assert time.monotonic() - start < 0.5 + PROMPT_S


@pytest.mark.parametrize("floats", [1 << 28, 1 << 34, 1 << 44])
def test_a_shape_bomb_in_onnx_meets_the_limit_and_not_this_machine(floats: int) -> None:
    before = available_mb()
    with IsolatedWorker("onnxruntime", SMALL) as worker:
        with pytest.raises(InferenceError, match="512 MB"):
            worker.load(bomb(floats)).run(feeds())
        assert before - available_mb() < 900


def test_a_shape_bomb_in_tflite_meets_the_limit() -> None:
    content = read_file(PROBE / "probe.tflite").files[0]
    shape = np.array([1, 24, 32, 3], np.int32).tobytes()
    assert shape in content
    huge = content.replace(shape, np.array([1, 1 << 15, 1 << 13, 3], np.int32).tobytes())
    before = available_mb()
    with IsolatedWorker("litert", SMALL) as worker:
        with pytest.raises(InferenceError, match="512 MB"):
            session = worker.load(Model("bomb", Format.TFLITE, (huge,)))
            session.run({s.name: np.zeros((1, 24, 32, 3), np.float32) for s in session.inputs})
        assert before - available_mb() < 900


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupting_the_wait_ends_the_child() -> None:
    with IsolatedWorker("onnxruntime", replace(SMALL, run_s=30)) as worker:
        session = worker.load(endless())
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            session.run(feeds())
        assert gone(worker.pid)


@pytest.mark.parametrize(
    "answer",
    [
        b"no json", b'{"type":"Unknown"}', b'{"type":"Done","outputs":[]}', b'{"type":"Unloaded"}',
        b'{"type":"Done","outputs":[["float32",[1,2,24,-1]]]}', b'{"type":"Done","outputs":"all"}', b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_child_that_talks_nonsense_is_ended(answer: bytes, worker: IsolatedWorker) -> None:
    session = worker.load(PROBE / "probe.onnx")
    process = worker._process
    real = process._socket

    class Lying:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def recv(self, size: int) -> bytes:
            real.recv(size)
            return answer

    process._socket = Lying()  # type: ignore[assignment]
    with pytest.raises(EngineCrashed, match="wrong answer while running"):
        session.run(image(session))
    assert gone(worker.pid)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float64", [1, 2, 24, 32]), ("float32", [1, 2, 1 << 20, 1 << 19]), ("object", [1])]
)
def test_outputs_that_are_not_those_promised_are_refused(
    dtype: str, shape: list[int], worker: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.runtimes.isolated_messages import Done, Tensor

    session = worker.load(PROBE / "probe.onnx")
    monkeypatch.setattr(worker._process, "ask", lambda *_: Done((Tensor(dtype, tuple(shape)),)))
    with pytest.raises(InferenceError, match="expected float32"):
        session.run(image(session))


# What is left behind


def test_fifty_loads_leave_no_descriptor_no_process_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def once(worker: IsolatedWorker) -> None:
        with worker.load(PROBE / "probe.onnx") as session:
            session.run(image(session))

    with IsolatedWorker("onnxruntime", SMALL) as warm:
        once(warm)
    before = descriptors("self")
    pids = []
    with IsolatedWorker("onnxruntime", SMALL) as worker:
        pids.append(worker.pid)
        for _ in range(45):
            once(worker)
        theirs = len(descriptors(worker.pid))
        assert theirs < 12, "the child keeps descriptors"
    for _ in range(5):
        with IsolatedWorker("onnxruntime", SMALL) as worker:
            pids.append(worker.pid)
            once(worker)
    assert descriptors("self") == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "a zombie"
    assert not list(tmp_path.iterdir())


def test_folders_of_parents_that_were_killed_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    remains, young, other = (tmp_path / name for name in ("edgeseg-engine-old", "edgeseg-engine-new", "other"))
    for folder in (remains, young, other):
        folder.mkdir()
        (folder / "file").write_text("")
    for folder in (remains, other):
        os.utime(folder, (0, 0))
    with IsolatedWorker("onnxruntime", SMALL) as held:
        (folder,) = set(tmp_path.iterdir()) - {remains, young, other}
        assert not remains.exists()
        os.utime(folder, (0, 0))
        with IsolatedWorker("onnxruntime", SMALL), held.load(PROBE / "probe.onnx") as session:
            assert folder.is_dir()
            assert session.execution().layers
    assert set(tmp_path.iterdir()) == {young, other}


def test_a_session_of_a_bundle_takes_its_process_with_it(make_bundle: MakeBundle) -> None:
    bundle = make_bundle((Format.TFLITE, Precision.FP32))
    session = open_session(bundle, bundle.artifacts[0], "litert", isolate=True)
    assert isinstance(session, IsolatedSession)
    pid = session._process.pid
    session.run(image(session))
    session.close()
    session.close()
    assert not Path(f"/proc/{pid}").exists()
    forgotten = open_session(bundle, bundle.artifacts[0], "litert", isolate=True)
    assert isinstance(forgotten, IsolatedSession)
    pid = forgotten._process.pid
    del forgotten
    assert not Path(f"/proc/{pid}").exists()


PARENT = """
import sys, threading
from edgeseg.runtimes.isolated import IsolatedWorker
from edgeseg.testing import PROBE
def start():
    global worker, session
    worker = IsolatedWorker("onnxruntime")
    session = worker.load(PROBE / "probe.onnx")
if "thread" in sys.argv:
    thread = threading.Thread(target=start); thread.start(); thread.join()
else:
    start()
print(worker.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["main", "thread"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_child_ends_with_its_parent(how: str, stopped: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid), "the thread that started it has ended, its process has not"
    if stopped:
        os.kill(pid, signal.SIGSTOP)  # it does not even get to see that its socket is closed
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: gone(pid))


# The sandbox itself


SANDBOX = """
import os, signal, socket, sys
from pathlib import Path
from edgeseg.runtimes import sandbox
applied = sandbox.confine([], sys.argv[2] if len(sys.argv) > 2 else "")
def attempt(what):
    try:
        return str(what() or "done")
    except Exception as error:
        return type(error).__name__ + str(getattr(error, "errno", ""))
listener = socket.socket()
print(*applied, sep=", ")
home = Path(sys.argv[1])
print("make", attempt(lambda: (home / "new").write_text("x")))
print("secret", attempt(lambda: (home / "secret").read_text()))
print("dots", attempt(lambda: Path(sys.prefix, *[".."] * 20, str(home / "secret")[1:]).read_text()))
print("link", attempt(lambda: Path("/proc/self/root" + str(home / "secret")).read_text()))
print("list", attempt(lambda: os.listdir(home)))
print("overwrite", attempt(lambda: (home / "secret").write_text("x")))
print("remove", attempt(lambda: (home / "secret").unlink()))
print("shm", attempt(lambda: Path("/dev/shm/edgeseg-test").write_text("x")))
print("passwords", attempt(lambda: Path("/etc/passwd").read_text()))
print("parent", attempt(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()))
print("run", attempt(lambda: os.execv("/bin/true", ["true"])))
print("connect", attempt(lambda: listener.connect(("127.0.0.1", 9))))
print("bind", attempt(lambda: listener.bind(("127.0.0.1", 0))))
print("kill", attempt(lambda: os.kill(os.getppid(), 0)))
print("library", attempt(lambda: Path(os.__file__).read_text()[:0]))
print("null", attempt(lambda: Path("/dev/null").write_text("x")))
import tempfile
def scratch():
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
        Path(folder, "file").write_text("text")
        return Path(folder, "file").read_text()
print("scratch", attempt(scratch))
print("big", attempt(lambda: Path(sys.argv[2], "big").write_bytes(bytes(17 << 20))))
"""


def confined(*args: object) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SANDBOX, *map(str, args)], capture_output=True, text=True, timeout=60, check=True
    )
    applied, *lines = done.stdout.splitlines()
    return {"applied": applied} | dict(line.split(" ", 1) for line in lines)


@pytest.mark.skipif(sandbox.landlock_abi() < 6, reason="the kernel has no Landlock of ABI 6")
def test_landlock_leaves_nothing_but_libraries(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the patients")
    found = confined(tmp_path)
    assert "files by landlock, tcp by landlock, signals by landlock" in found["applied"]
    denied = ("secret", "dots", "link", "list", "make", "overwrite", "remove", "shm", "passwords", "run")
    assert {name: found[name] for name in (*denied, "connect", "bind")} == dict.fromkeys(
        (*denied, "connect", "bind"), "PermissionError13"
    )
    assert found["parent"] == "PermissionError13"
    assert found["kill"] == "PermissionError1"
    assert (found["library"], found["null"]) == ("done", "1")
    assert (tmp_path / "secret").read_text() == "the patients"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sandbox.landlock_abi() < 1, reason="the kernel has no Landlock")
def test_a_scratch_folder_is_the_only_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret").write_text("the patients")
    (tmp_path / "scratch").mkdir()
    found = confined(tmp_path / "home", tmp_path / "scratch")
    assert found["scratch"] == "text"
    assert found["big"] == "OSError27"
    assert found["make"] == found["secret"] == "PermissionError13"


def test_without_landlock_the_limits_hold_and_the_list_says_so(tmp_path: Path) -> None:
    code = SANDBOX.replace("applied =", "sandbox.landlock_abi = lambda: 0\napplied =")
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    applied = done.stdout.splitlines()[0]
    assert applied == "no core dumps, no writes to files, no new privileges, no capabilities"
    assert "make OSError27" in done.stdout
    assert not (tmp_path / "new").read_bytes()


def test_a_session_says_what_holds_for_it(make_bundle: MakeBundle) -> None:
    bundle = make_bundle((Format.OPENVINO, Precision.FP32))
    with open_session(bundle, bundle.artifacts[0], "openvino", isolate=SMALL) as session:
        assert isinstance(session, IsolatedSession)
        assert session.sandbox[:3] == ("memory 512 MB", "no core dumps", "no writes to files")
        assert ("files by landlock" in session.sandbox) is (sandbox.landlock_abi() > 0)
        status = Path(f"/proc/{session._process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert re.search(r"CapEff:\t0+\n", status)
        limits = Path(f"/proc/{session._process.pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", limits)
        assert re.search(r"Max file size\s+0\s+0", limits)
        environment = Path(f"/proc/{session._process.pid}/environ").read_bytes()
        assert b"PATH=" not in environment.replace(b"LD_LIBRARY_PATH=", b"")


def test_a_process_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors("self")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(InferenceError, match="no process can be started for litert"):
        EngineProcess("litert", SMALL)
    assert descriptors("self") == before
