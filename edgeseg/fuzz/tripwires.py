"""Tripwires at the parsers: while they are set, whatever would parse a byte of a bundle is counted instead."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import cv2
import numpy as np

from edgeseg import plugins
from edgeseg.plugins import load_attribute


class Tripped(Exception):
    """A parser would have been given something."""


@contextlib.contextmanager
def tripwires() -> Iterator[Counter[str]]:
    """Replace the loading of every engine, OpenCV's decoder and numpy's reader by what counts and raises Tripped.

    Yields how often each of them was reached.
    """
    count: Counter[str] = Counter()
    with contextlib.ExitStack() as put_back:
        for name, target in plugins.RUNTIMES.items():
            kind = load_attribute(target)
            for method in ("load", "_open"):
                _replace(kind, method, f"{name}.{method}", count, put_back)
        _replace(cv2, "imdecode", "cv2.imdecode", count, put_back)
        _replace(np, "load", "numpy.load", count, put_back)
        yield count


def _replace(owner: Any, attribute: str, name: str, count: Counter[str], put_back: contextlib.ExitStack) -> None:
    def trip(*_: object, **__: object) -> NoReturn:
        count[name] += 1
        raise Tripped(name)

    if attribute in vars(owner):
        put_back.callback(setattr, owner, attribute, vars(owner)[attribute])
    else:
        put_back.callback(delattr, owner, attribute)
    setattr(owner, attribute, trip)
