"""The device application of examples/firmware as a process: it works, it ends as asked, it survives what it should."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeseg.keys import new_key
from edgeseg.samples import FRAMES
from edgeseg.signing import sign_bundle

FOLDER = Path(__file__).parents[2] / "examples" / "firmware"
PATIENCE_S = 90.0
WORKSTATION = ("torch", "onnx", "nncf", "litert_torch", "ai_edge_quantizer", "monai", "edgeseg.converters")


@dataclass(eq=False)
class Device:
    """A running application: what it logs, what it tells systemd, what it writes."""

    process: subprocess.Popen[str]
    folder: Path
    manager: socket.socket

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = (self.folder / "log").read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]

    def health(self) -> dict[str, Any]:
        file = self.folder / "health.json"
        return json.loads(file.read_text()) if file.exists() else {"results": 0}

    def messages(self) -> list[str]:
        found = []
        while True:
            try:
                found += self.manager.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)

    def works(self, results: int = 60) -> None:
        """Wait until that many more results were made."""
        before = self.health()["results"]
        self.until(lambda: self.health()["results"] >= before + results)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., Device]]:
    """Start the application with some settings; what is left of it is killed in the end."""
    processes = []

    def begin(*, environment: dict[str, str] | None = None, **settings: object) -> Device:
        # A deadline that a busy machine keeps too.
        usual = {"bundles": [str(bundle)], "health": str(tmp_path / "health.json"), "deadline_ms": 100}
        settings = usual | settings
        lines = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
        (tmp_path / "firmware.toml").write_text("\n".join(lines) + "\n")
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        address = f"edgeseg-test-{os.getpid()}-{len(processes)}-{tmp_path.name}"
        manager.bind(f"\0{address}")
        variables = {"NOTIFY_SOCKET": f"@{address}", "WATCHDOG_USEC": "2000000", "OMP_NUM_THREADS": "1"}
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, FOLDER / "main.py", tmp_path / "firmware.toml"],
                env=os.environ | variables | (environment or {}),
                stderr=log,
                text=True,
            )
        processes.append((process, manager))
        return Device(process, tmp_path, manager)

    yield begin
    for process, manager in processes:
        process.kill()
        process.wait()
        manager.close()


def workers(process: int) -> list[int]:
    """Processes of isolated engines, the first one first."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())


def test_it_works_and_ends_as_asked(start, tmp_path, frames):
    """On frames that the model was trained for: each of them has an outline to draw."""
    picture = tmp_path / "newest.png"
    device = start(links=["litert:int8", "onnxruntime:fp32"], source=str(frames), picture=str(picture))
    device.works()
    assert device.end() == 0
    assert [entry["event"] for entry in device.log] == ["bundle loaded", "source opened", "ended"]
    assert device.events("bundle loaded")[0]["chain"] == ["tflite-int8 on litert cpu", "onnx-fp32 on onnxruntime cpu"]
    health = device.health()
    assert health["results"] == health["fresh"] + health["stale"] >= 60
    assert health["fresh"] > health["results"] / 2
    assert (health["link"], health["switches"], health["source_lost"]) == ("tflite-int8 on litert cpu", 0, 0)
    told = device.messages()
    assert told[0] == "READY=1"
    assert told[-1] == "STOPPING=1"
    assert told.count("WATCHDOG=1") >= 2
    drawn = cv2.imread(str(picture))
    assert drawn.shape[:2] == cv2.imread(str(frames / "images" / "000.png")).shape[:2]
    assert (drawn[:, :, 0] != drawn[:, :, 2]).any(), "nothing coloured is drawn on the gray frame"


def test_nothing_of_the_workstation_is_imported(bundle, tmp_path):
    (tmp_path / "firmware.toml").write_text(f"bundles = ['{bundle}']\n")
    done = subprocess.run(
        [sys.executable, "-c", MODULES, FOLDER, tmp_path / "firmware.toml"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()).intersection(WORKSTATION)
    assert {"edgeseg.runtimes.stream", "cv2"} <= set(done.stdout.split())


# The application ends itself after two seconds of work, and says what it imported.
MODULES = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
import main, watchdog

def end():
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGTERM)

class Watchdog(watchdog.Watchdog):
    def ready(self, status):
        threading.Thread(target=end).start()

main.Watchdog = Watchdog
code = main.main([sys.argv[2]])
print(*sys.modules)
sys.exit(code)
"""


def test_an_engine_that_dies_is_replaced(start):
    device = start(links=["litert:int8", "onnxruntime:int8"], isolate=True)
    device.works(30)
    first, second = workers(device.process.pid)
    os.kill(first, signal.SIGKILL)
    device.works(30)
    assert device.health()["link"] == "onnx-int8 on onnxruntime cpu"
    (switch,) = (entry for entry in device.log if entry["from"] == "edgeseg.stream")
    assert switch["level"] == "warning"
    assert "tflite-int8 on litert cpu" in switch["event"]
    assert "onnx-int8 on onnxruntime cpu" in switch["event"]
    os.kill(second, signal.SIGKILL)
    assert device.wait() == 1
    last = device.log[-1]
    assert (last["event"], last["kind"], last["level"]) == ("ended", "StreamFailed", "critical")
    assert "tflite-int8" in last["reason"] or "onnx-int8" in last["reason"]
    assert device.health()["switches"] == 2
    assert device.messages()[-1] == "STOPPING=1"


def test_new_bundles_without_a_gap(start, bundle_copy):
    device = start(bundles=[str(bundle_copy)], links=["litert:int8"])
    device.works(30)
    with next_to(bundle_copy) as damaged:
        (damaged / "manifest.json").write_text("{}")
        device.process.send_signal(signal.SIGHUP)
        device.until(lambda: device.events("reload failed"))
        assert device.events("reload failed")[0]["kind"] == "BundleError"
        device.works(30)
    device.process.send_signal(signal.SIGHUP)
    device.until(lambda: device.health().get("reloads") == 1)
    device.works(30)
    assert device.end() == 0
    health = device.health()
    assert (health["streams"], health["source_lost"]) == (2, 0)
    assert health["results"] >= 120
    assert health["longest_gap_ms"] < 1000


@contextmanager
def next_to(path: Path) -> Iterator[Path]:
    """The folder, to spoil; afterwards it is as before."""
    shutil.copytree(path, path.with_suffix(".kept"))
    yield path
    shutil.rmtree(path)
    path.with_suffix(".kept").rename(path)


def test_a_source_that_comes_later(start, tmp_path):
    device = start(links=["litert:int8"], source=str(tmp_path / "frames"))
    device.until(lambda: device.events("source lost"))
    assert device.events("source lost")[0]["kind"] == "BadInput"
    shutil.copytree(FRAMES, tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "frames")
    device.works(30)
    assert device.end(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_heard_whatever_threads_libraries_have(start, number):
    """As without edgeseg.service, which keeps numpy from starting threads."""
    device = start(links=["litert:int8"], environment={"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"})
    device.works(30)
    device.process.send_signal(signal.SIGHUP)
    device.until(lambda: device.health().get("reloads") == 1)
    assert device.end(number) == 0
    assert device.log[-1]["reason"] == "asked to"


def test_the_end_is_heard_while_the_source_is_silent(start, tmp_path):
    os.mkfifo(tmp_path / "probe")
    device = start(links=["litert:int8"], source=f"pipe:{tmp_path / 'probe'}?width=64&height=48", patience_s=60)
    device.until(lambda: "READY=1" in device.messages())
    time.sleep(0.5)
    begun = time.monotonic()
    assert device.end() == 0
    assert time.monotonic() - begun < 10


def test_a_bundle_that_cannot_be_used_makes_room_for_the_one_before(start, bundle, bundle_copy):
    (bundle_copy / "manifest.json").write_text("{}")
    device = start(bundles=[str(bundle_copy), str(bundle)], links=["litert:int8"])
    device.works(30)
    assert device.end() == 0
    (refused,) = device.events("bundle refused")
    assert (refused["bundle"], refused["kind"]) == (str(bundle_copy), "BundleError")


def test_who_signed_is_checked_and_said(start, bundle_copy, tmp_path):
    ours, theirs = new_key("ours", tmp_path), new_key("theirs", tmp_path)
    sign_bundle(bundle_copy, theirs.with_suffix(".key"))
    device = start(bundles=[str(bundle_copy)], links=["litert:int8"], trusted_keys=[str(ours)])
    assert device.wait() == 3
    assert device.log[-1]["kind"] == "SignatureError"
    assert "READY=1" not in device.messages()
    sign_bundle(bundle_copy, ours.with_suffix(".key"))
    device = start(bundles=[str(bundle_copy)], links=["litert:int8"], trusted_keys=[str(ours)])
    device.works(30)
    assert device.end() == 0
    assert device.events("bundle loaded")[0]["signer"] == "ours"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bundle": "a"}, "unknown field 'bundle'"),
        ({"threads": "two"}, "threads is 'two', expected int"),
        ({"bundles": []}, "there is no bundle"),
        ({"rate_hz": 0}, "rate_hz is 0, expected a number above 0"),
        ({"deadline_ms": -1.5}, "deadline_ms is -1.5, expected a number above 0"),
        ({"links": ["openvino:int9"]}, "unknown precision 'int9'"),
    ],
)
def test_bad_settings(start, settings, said):
    device = start(**settings)
    assert device.wait() == 2
    (line,) = device.log
    assert said in line["reason"]
    assert "traceback" not in line


def test_the_settings_that_come_with_it_are_valid():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import settings, pathlib; "
        "print(settings.read_settings(pathlib.Path(sys.argv[1]) / 'firmware.toml').bundles)"
    )
    done = subprocess.run([sys.executable, "-c", code, FOLDER], capture_output=True, text=True, check=False)
    assert "head.edgeseg" in done.stdout, done.stderr


def test_the_unit_fits_the_program():
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read(FOLDER / "edgeseg.service")
    service = unit["Service"]
    sys.path.insert(0, str(FOLDER))
    try:
        import faults
        from settings import Settings
    finally:
        sys.path.remove(str(FOLDER))
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"].split() == [str(faults.BAD_SETTINGS), str(faults.STAY_DOWN)]
    assert int(service["WatchdogSec"]) > Settings(("a",)).patience_s
    assert service["LimitMEMLOCK"] == "infinity"
