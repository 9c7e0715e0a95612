"""No engine that edgeseg starts reports its use to its maker, nor keeps anything for such a report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgeseg.plugins import ENGINES

# Every engine runs the probe model, and is given the time in which a report would be sent.
CODE = """
import os, sys, time
{first}
from edgeseg import plugins
for name in {engines}:
    assert plugins.runtime(name).devices()
import openvino.tools.ovc
time.sleep(0.5)
files = (f"/proc/self/fd/{{f}}" for f in os.listdir("/proc/self/fd"))
print(*(os.readlink(file) for file in files if os.path.lexists(file)))
"""


def run(home: Path, first: str) -> tuple[str, set[str]]:
    """What such a process has open in the end, and the files that it leaves at home."""
    # Both engines also say nothing where they believe to be in somebody's CI.
    variables = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(first=first, engines=ENGINES)],
        env=variables | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, {path.name for path in home.rglob("*") if path.is_file()}


def test_nothing_is_kept_or_sent(tmp_path):
    opened, files = run(tmp_path, "import edgeseg")
    assert files == set()
    assert "socket:" not in opened
    assert str(tmp_path) not in opened


def test_this_would_be_seen(tmp_path):
    """The same engines, imported before edgeseg could say anything; one that reports nothing any more fails here."""
    _, files = run(tmp_path, "import onnxruntime, openvino, edgeseg")
    assert {"deviceid", "openvino_ga_cid"} <= files
