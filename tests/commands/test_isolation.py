"""What the commands do about files of strangers: engines and whole conversions in child processes, with limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeseg.bundle import open_bundle
from edgeseg.cli import main
from edgeseg.commands import isolation

Invoke = Callable[..., Result]
FAST = ("--format", "onnx", "--precision", "fp32", "--size", "64x96")

HOSTILE = '''
import ctypes
import os
import signal
import subprocess
import sys
import time


def crash():
    ctypes.string_at(8)


def hang():
    sleep = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", sleep, "left behind by the test"])
    print("hanging", flush=True)
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass  # as litert-torch does


def swell():
    return bytearray(3 << 30)
'''


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module whose factories do what a hostile file may make a parser do, on the import path."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "hostile.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "b.edgeseg"


def convert(*args: object) -> Result:
    return CliRunner().invoke(main, ["convert", *(str(a) for a in args)])


def one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: the conversion of hostile:")
    assert "no bundle was written" in result.stderr
    return result.stderr


def left_behind() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if line.rstrip().endswith("left behind by the test")]


def test_a_conversion_in_a_child_says_and_makes_what_one_in_this_process_does(
    conversion: tuple[Path, Result], tiny_args: tuple[object, ...], frames: Path, output: Path
) -> None:
    args = ("convert", "--no-isolate", *tiny_args, "--calibration", frames, "-o", output, *FAST[:4])
    here = CliRunner().invoke(main, [str(a) for a in args])
    assert here.exit_code == 0, here.output
    path, there = conversion
    assert there.stdout.splitlines()[:3] == here.stdout.splitlines()[:3]
    models = [next(a for a in open_bundle(p).artifacts if a.name == "onnx-fp32") for p in (path, output)]
    assert models[0].sha256 == models[1].sha256


def test_a_crash_is_one_line_and_leaves_nothing(hostile: Path, frames: Path, output: Path) -> None:
    result = convert("hostile:crash", "--calibration", frames, "-o", output, *FAST)
    assert "crashed (SIGSEGV) within" in one_line(result)
    assert not list(output.parent.iterdir())


def test_what_takes_too_long_is_ended(hostile: Path, frames: Path, output: Path) -> None:
    recipe = hostile / "recipe.toml"
    os.mkfifo(recipe)  # nobody ever writes into it
    start = time.monotonic()
    words = ("hostile:hang", "--calibration", frames, "-o", output, *FAST, "--recipe", recipe)
    result = convert(*words, "--limit-time", 0.05)
    assert "took longer than the limit of 0.05 minutes (--limit-time)" in one_line(result)
    assert time.monotonic() - start < 3 + 2
    assert not list(output.parent.iterdir())


def test_what_needs_too_much_memory_is_ended(hostile: Path, frames: Path, output: Path) -> None:
    result = convert("hostile:swell", "--calibration", frames, "-o", output, *FAST, "--limit-memory", 2)
    assert "needs more memory than the limit of 2 GB (--limit-memory)" in one_line(result)
    assert not list(output.parent.iterdir())


def test_ctrl_c_ends_a_child_that_does_not_listen(
    hostile: Path, frames: Path, output: Path
) -> None:
    code = (
        "from edgeseg.commands import isolation; isolation._PATIENCE_S = (0.3, 0.3)\n"
        "from edgeseg.cli import main; main()"
    )
    words = ("convert", "hostile:hang", "--calibration", str(frames), "-o", str(output), *FAST)
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"PYTHONPATH": str(hostile)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Ignored, and so inherited, where the tests run in the background of a shell.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert parent.stdout is not None
    for line in parent.stdout:
        if "hanging" in line:
            parent.send_signal(signal.SIGINT)
            break
    _, errors = parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert errors.strip() == "error: interrupted"
    assert not left_behind()


def test_errors_and_exit_codes_of_the_child_pass_through(hostile: Path, frames: Path, output: Path) -> None:
    result = convert("hostile:crash", "--calibration", output / "nothing", "-o", output, *FAST)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "nothing" in result.stderr
    assert result.stderr.count("\n") == 1
    assert convert("hostile:crash", "-o", output).exit_code == 2
    assert convert("hostile:crash", "--calibration", frames, "-o", output, "--limit-time", 0).exit_code == 2


def test_debug_shows_where_in_the_child(hostile: Path, output: Path) -> None:
    words = ["--debug", "convert", "hostile:crash", "--calibration", str(output / "nothing"), "-o", str(output), *FAST]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("{}['weights']", "the conversion of x failed (KeyError: 'weights'); --debug shows where"),
        ("raise RuntimeError('std::bad_alloc')", "the conversion of x needs more memory than the limit of 3 GB"),
        ("raise ConversionError('x is not a model')", "x is not a model"),
    ],
)
def test_what_a_library_raises_in_the_child_is_one_line(code: str, message: str) -> None:
    lines = (
        "from edgeseg.errors import ConversionError",
        "from edgeseg.commands.isolation import _contained",
        "try:",
        f"    with _contained('conversion of x', 3): {code}",
        "except ConversionError as error: print(error)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(message)


def test_the_parent_of_a_conversion_imports_no_torch() -> None:
    code = "import sys, edgeseg.commands.convert; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each session that a command opened was isolated."""
    from edgeseg.commands import candidates
    from edgeseg.runtimes import choice, opening

    seen: list[bool] = []

    def watching(*args: object, isolate: bool = False, **rest: object) -> object:
        seen.append(isolate)
        return opening.open_session(*args, isolate=isolate, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(candidates, "open_session", watching)
    monkeypatch.setattr(choice, "open_session", watching)
    return seen


def test_verify_isolates_what_nobody_signed_and_what_it_is_told_to(
    bundle: Path, tmp_path: Path, invoke: Invoke, watched: list[bool]
) -> None:
    rows = []
    for options in ((), ("--no-isolate",), ("--isolate",)):
        report = tmp_path / "report.json"
        result = invoke("verify", bundle, "--json", report, *options)
        assert result.exit_code == 0, result.output
        rows.append(json.loads(report.read_text())["rows"])
    assert watched == [True] * 6 + [False] * 6 + [True] * 6
    assert [(r["agreement"], r["sqnr_db"], r["executed"]) for r in rows[0]] == [
        (r["agreement"], r["sqnr_db"], r["executed"]) for r in rows[1]
    ]


def test_a_checked_signature_is_trusted(bundle: Path) -> None:
    from dataclasses import replace

    from edgeseg.types import Signer

    opened = open_bundle(bundle)
    signed = replace(opened, signer=Signer("0" * 64, "somebody", "2026-01-31T12:00:00Z"))
    assert isolation.isolated(None, opened)
    assert not isolation.isolated(None, signed)
    assert isolation.isolated(True, signed)
    assert not isolation.isolated(False, opened)


def test_run_isolates_when_asked_and_gives_the_same_masks(
    bundle: Path, frames: Path, tmp_path: Path, invoke: Invoke, watched: list[bool]
) -> None:
    image = sorted((frames / "images").iterdir())[0]
    masks = []
    for name, options in (("here", ()), ("there", ("--isolate",))):
        result = invoke(
            "run", bundle, image, "-o", tmp_path / name, "--runtime", "litert", "--precision", "int8", *options
        )
        assert result.exit_code == 0, result.output
        masks.append(cv2.imread(str(tmp_path / name / "masks" / image.name), cv2.IMREAD_UNCHANGED))
    assert watched == [False, True]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert masks[0].any()


AT_THE_START = """
import os
if setup["runtime"] == "litert":
    os.kill(os.getpid(), 11)
"""
AT_RUN_4 = """
import os
from edgeseg.runtimes import isolated_worker
run, runs = isolated_worker._Worker._run, []
def dying(*arguments):
    runs.append(arguments)
    if setup["runtime"] == "litert" and len(runs) == 4:
        os.kill(os.getpid(), 11)
    return run(*arguments)
isolated_worker._Worker._run = dying
"""


@pytest.mark.parametrize("kill", [AT_THE_START, AT_RUN_4])
def test_a_bundle_whose_models_crash_fails_verification_row_by_row(
    kill: str, bundle: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.runtimes import isolated_process

    start = isolated_process._START
    monkeypatch.setattr(isolated_process, "_START", start.replace("serve(setup", kill + "serve(setup"))
    result = invoke("verify", bundle)
    assert result.exit_code == 1
    assert "litert crashed (SIGSEGV)" in result.stdout
    assert "4 passed, 2 failed, 0 not run here" in result.stdout
