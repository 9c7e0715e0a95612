"""The device application of examples/firmware where there is nothing but edgeseg and one engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FIRMWARE = Path(__file__).parents[2] / "examples" / "firmware"

# It ends itself after some seconds of work, and then says what it imported.
RUN = """
import os, signal, sys, threading, time
sys.path.insert(0, "firmware")
import main, watchdog

def end():
    time.sleep(4)
    os.kill(os.getpid(), signal.SIGTERM)

class Watchdog(watchdog.Watchdog):
    def ready(self, status):
        threading.Thread(target=end).start()

main.Watchdog = Watchdog
code = main.main(["firmware/device.toml"])
print(*sys.modules)
sys.exit(code)
"""


def test_the_firmware_runs_on_one_engine(device, bundle, tmp_path):
    shutil.copytree(FIRMWARE, tmp_path / "firmware")
    health = tmp_path / "health.json"
    (tmp_path / "firmware" / "device.toml").write_text(f"bundles = ['{bundle}']\nhealth = '{health}'\nrate_hz = 15\n")
    done = device.environment.run("python", "-c", RUN, cwd=tmp_path)
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert not modules & {"torch", "onnx", "nncf", "monai", "litert_torch", "ai_edge_quantizer"}
    log = [json.loads(line) for line in done.stderr.splitlines()]
    (loaded,) = (entry for entry in log if entry["event"] == "bundle loaded")
    assert all(f" on {device.runtime} " in link for link in loaded["chain"])
    assert {link.split()[0].partition("-")[2] for link in loaded["chain"]} == {"int8", "fp32"}
    counts = json.loads(health.read_text())
    assert counts["fresh"] > counts["results"] / 2 > 15
