"""Whatever an engine raises becomes an InferenceError of one line."""

from __future__ import annotations

import re

from edgeseg.errors import EdgesegError, InferenceError

_LONGEST_REASON = 240


class EngineErrors:
    """Translates whatever an engine raises inside into an InferenceError of one line; entered as often as one likes."""

    __slots__ = ("_action", "_noise")

    def __init__(self, action: str, noise: str) -> None:
        self._action, self._noise = action, noise

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, EdgesegError):
            reason = " ".join(re.sub(self._noise, " ", str(error)).split()) or type(error).__name__
            raise InferenceError(f"{self._action}: {reason[:_LONGEST_REASON]}") from error


def engine_errors(action: str, noise: str = r"(?!)") -> EngineErrors:
    """A context in which whatever an engine raises becomes an InferenceError of one line.

    Args:
        action: what failed, as in "onnxruntime cannot load a.onnx".
        noise: regular expression of what to leave out of the engine's message.
    """
    return EngineErrors(action, noise)
