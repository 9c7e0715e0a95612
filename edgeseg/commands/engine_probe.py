"""What one engine can do here, found out in a process of its own: an engine that crashes takes nothing along."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeseg import plugins
from edgeseg.boards.findings import DeviceState, EngineState
from edgeseg.errors import InferenceError, MissingDependency

_SECONDS = 300.0  # an engine that builds kernels for a GPU takes its time
_EXTRAS = {"litert": "tflite", "onnxruntime": "onnx", "openvino": "openvino"}


def engine_states(names: Sequence[str] = plugins.ENGINES) -> tuple[EngineState, ...]:
    """The states of engines, each probed in a child process."""
    with ThreadPoolExecutor(len(names)) as pool:
        return tuple(pool.map(engine_state, names))


def engine_state(name: str) -> EngineState:
    """The state of one engine; a child that dies or hangs is a broken engine."""
    install = f"pip install 'edgeseg[{_EXTRAS[name]}]'"
    command = [sys.executable, "-P", "-m", __name__, name]  # nothing of the current folder is an engine
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        answer = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return EngineState(name, install, reason=f"gave no answer in {_SECONDS:.0f} s")
    except (json.JSONDecodeError, IndexError):
        return EngineState(name, install, reason=_death(done.returncode, done.stderr))
    devices = tuple(DeviceState(**device) for device in answer.pop("devices"))
    return EngineState(name, install, devices=devices, **answer)


def probe(name: str) -> dict[str, Any]:
    """What EngineState says, as far as this process can tell."""
    runtime: Any = plugins.runtime(name)
    try:
        version, proofs = runtime.version(), runtime.proofs()
    except MissingDependency:
        return {"version": None, "reason": "", "devices": []}
    except (InferenceError, ImportError) as error:
        return {"version": None, "reason": " ".join(f"{type(error).__name__}: {error}".split()), "devices": []}
    devices = [
        {
            "name": p.name,
            "listed": runtime._obstacle(p.name) is None,
            "usable": p.usable,
            "reason": p.reason,
            "verified": p.verified,
        }
        for p in proofs
    ]
    return {"version": version, "reason": "", "devices": devices}


def _death(code: int, stderr: str) -> str:
    last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"died of signal {-code} ({last})" if code < 0 else f"ended with code {code} ({last})"


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
