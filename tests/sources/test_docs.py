from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import NoSuchDevice
from edgeseg.frame_source import FrameSource
from edgeseg.sources import open_source, ring

PAGE = Path(__file__).parents[2] / "docs/sources.md"


def open_soon(spec: str) -> FrameSource:
    until = time.monotonic() + 20
    while True:
        try:
            return open_source(spec)
        except NoSuchDevice:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def test_the_producer_in_c_is_read(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```c\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "producer.c").write_text(code)
    build = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "producer.c", "-o", "producer", "-lrt"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=60)
    name = f"edgeseg-test-c-{os.getpid()}"
    producer = subprocess.Popen([str(tmp_path / "producer"), f"/{name}"])
    try:
        with open_soon(f"shm:{name}") as source:
            items = list(source)
    finally:
        code = producer.wait(30)
        ring.file_of(name).unlink(missing_ok=True)
    assert code == 0
    assert len(items) > 20
    for item in items:
        assert item.frame.shape == (48, 64)
        assert item.frame.min() == item.frame.max()
        assert item.pixel_size_mm == 0.25
    values = [int(i.frame[0, 0]) for i in items]
    assert np.diff(values).min() > 0
    assert values[-1] == 200
    assert items[-1].captured_s == pytest.approx(time.monotonic(), abs=20)
