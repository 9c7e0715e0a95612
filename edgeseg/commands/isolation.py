"""Commands that meet files of strangers: engines in processes of their own, or the whole command in a child process."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from edgeseg.boards.detect import detect
from edgeseg.commands.ranges import POSITIVE
from edgeseg.errors import ConversionError, EdgesegError
from edgeseg.runtimes.sandbox import die_with_parent, ending, limit_data
from edgeseg.types import Bundle

_WORDS, _DEBUG = "edgeseg.words", "edgeseg.debug"
_PARENT = "EDGESEG_PARENT"
_SHARE_OF_MEMORY = 0.75
_GB = 10**9
_PATIENCE_S = (5.0, 5.0, 5.0)  # some converters swallow the first Ctrl-C
_OWN_CODES, _INTERRUPTED = (0, 1, 2), 130
_NO_MEMORY = re.compile(r"bad_?alloc|alloc\w* memory|out of memory|MemoryError", re.IGNORECASE)


def isolate_option(default: bool | None, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --isolate/--no-isolate; with None as default it depends on the bundle: see `isolated`."""
    return click.option("--isolate/--no-isolate", "isolate", default=default, help=help)


def isolated(asked: bool | None, bundle: Bundle) -> bool:
    """Whether engines get processes of their own: as asked, else where no checked signature vouches for the bundle."""
    return bundle.signer is None if asked is None else asked


class ContainedCommand(click.Command):
    """A conversion of SOURCE that runs in a child process with limits, because its file may come from anywhere.

    The parent starts the same command line again and imports nothing that the command needs; the child sees that it
    is one by a variable with its parent's number. Whatever kills the child becomes a ConversionError of one line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _options()

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Keep the words of the command line."""
        words = list(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[_WORDS] = words
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run in a child, be the child, or with --no-isolate run right here."""
        isolate, memory_gb, minutes = (ctx.params.pop(name) for name in ("isolate", "limit_memory", "limit_time"))
        what = f"conversion of {ctx.params['source']}"
        memory_gb = memory_gb or _most_memory_gb()
        if os.environ.get(_PARENT) == str(os.getppid()):
            with _contained(what, memory_gb):
                return super().invoke(ctx)
        if not isolate:
            return super().invoke(ctx)
        child = _Child(ctx, what, memory_gb, minutes)
        return child.run()


class _Child:
    """The same command again, in a process group of its own."""

    def __init__(self, ctx: click.Context, what: str, memory_gb: float, minutes: float) -> None:
        self._what, self._memory_gb, self._minutes = what, memory_gb, minutes
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        debug = ["--debug"] if ctx.meta.get(_DEBUG) else []
        # Modules are found where this process finds them, and nowhere else.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        words = [*debug, str(ctx.info_name), *ctx.meta[_WORDS]]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgeseg.cli", *words],
            stdout=_destination(sys.stdout),
            stderr=_destination(sys.stderr),
            env=os.environ | {_PARENT: str(os.getpid()), "PYTHONPATH": path},
            process_group=0,
        )

    def run(self) -> int:
        """Wait for the end of the child, which comes; its exit code. Raises ConversionError where it was killed."""
        relays = [
            threading.Thread(target=_relay, args=(pipe, stream))
            for pipe, stream in ((self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr))
            if pipe is not None
        ]
        for relay in relays:
            relay.start()
        try:
            return self._code()
        finally:
            self._signal(signal.SIGKILL)  # what the child may have left running
            self._process.wait()
            for relay in relays:
                relay.join()

    def _code(self) -> int:
        try:
            code = self._process.wait(60 * self._minutes)
        except subprocess.TimeoutExpired:
            limit = f"the limit of {self._minutes:g} minutes (--limit-time) and was ended"
            raise ConversionError(f"the {self._what} took longer than {limit}: no bundle was written") from None
        except KeyboardInterrupt:
            self._interrupt()
            raise
        if code in _OWN_CODES:
            return code
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        raise ConversionError(
            f"the {self._what} crashed ({ending(code)}) within {self._memory_gb:.3g} GB of memory (--limit-memory): "
            "no bundle was written; the file may be damaged or hostile"
        )

    def _interrupt(self) -> None:
        """Let the child clear up; whoever waits for it kills what does not listen."""
        for seconds in _PATIENCE_S:
            self._signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                return

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def _contained(what: str, memory_gb: float) -> Iterator[None]:
    """Limit this process, which is the child, and turn whatever its libraries raise into an error of one line."""
    die_with_parent(os.getppid())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_data(int(memory_gb * _GB))
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent may ask again, and says so to the user
        sys.exit(_INTERRUPTED)
    except (click.ClickException, click.Abort, click.exceptions.Exit, OSError):
        raise
    except Exception as error:
        if _NO_MEMORY.search(f"{error!r} {error.__cause__!r}"):
            limit = f"the limit of {memory_gb:.3g} GB (--limit-memory)"
            raise ConversionError(f"the {what} needs more memory than {limit}: no bundle was written") from error
        if isinstance(error, EdgesegError):
            raise
        reason = f"{type(error).__name__}: {error}"[:300]
        raise ConversionError(f"the {what} failed ({reason}); --debug shows where: no bundle was written") from error


def _options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--isolate/--no-isolate"], default=True, help="Work in a child process with these limits; on by default."
        ),
        click.Option(
            ["--limit-memory"], type=POSITIVE, metavar="GB", help="Of data in the child; 75 % of the memory by default."
        ),
        click.Option(
            ["--limit-time"], type=POSITIVE, metavar="MINUTES", default=240.0, show_default=True, help="Of the child."
        ),
    ]


def _most_memory_gb() -> float:
    memory = detect().memory_bytes
    return _SHARE_OF_MEMORY * (memory or 16 * _GB) / _GB


def _is_file(stream: IO[str]) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError):  # a stream in memory, as in tests and notebooks
        return False


def _destination(stream: IO[str]) -> IO[str] | int:
    return stream if _is_file(stream) else subprocess.PIPE


def _relay(pipe: IO[bytes], stream: IO[str]) -> None:
    for line in pipe:
        stream.write(line.decode(errors="replace"))
        stream.flush()
    pipe.close()
