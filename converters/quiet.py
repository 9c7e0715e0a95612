"""Keep the converters from chattering: to the user's terminal, and over the network to their makers."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_LAST_CHARACTERS = 2000


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send stdout and stderr, native code's too, to a file, whose end an exception gets as a note; report no usage."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        saved = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            # The descriptors for native code; the objects for whoever replaced them, as a notebook or a test does.
            with (
                contextlib.redirect_stdout(log),
                contextlib.redirect_stderr(log),
                _no_usage_reports(),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            log.seek(0)
            error.add_note(log.read()[-_LAST_CHARACTERS:])
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, target in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


@contextlib.contextmanager
def _no_usage_reports() -> Iterator[None]:
    # OpenVINO's converter and NNCF report usage over the network, unless they believe to run in somebody's CI.
    saved = {name: os.environ.get(name) for name in ("CI", "NNCF_CI")}
    os.environ.update(dict.fromkeys(saved, "true"))
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
