"""Keep the converters' chatter out of the user's terminal, and have it at hand when something fails."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_LAST_LINES = 2000


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send stdout and stderr, native code's too, to a file; an exception gets the end of it as a note."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        saved = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            log.seek(0)
            error.add_note(log.read()[-_LAST_LINES:].decode(errors="replace"))
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, target in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
