"""From a bundle on the disk to engines that are loaded, tested and warm."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from threading import Thread
from time import perf_counter

import faults
from journal import event
from settings import Settings

from edgeseg import EdgesegError, Segmenter, load_chain, open_bundle

Chain = tuple[Segmenter, ...]


def load_first(settings: Settings) -> Chain:
    """The chain of the first bundle that is signed, intact, and does here what it did when it was verified.

    Raises:
        EdgesegError: none of them is; the error of the last one.
    """
    for path in settings.bundles[:-1]:
        try:
            return _load(path, settings)
        except faults.OF_THE_BUNDLE as error:
            event("bundle refused", logging.ERROR, bundle=path, kind=type(error).__name__, reason=str(error))
    return _load(settings.bundles[-1], settings)


def _load(path: str, settings: Settings) -> Chain:
    start = perf_counter()
    # The signature first, and with it the hash of every file: no engine has seen a byte until then.
    bundle = open_bundle(path, trusted_keys=settings.trusted_keys or None)
    chain = load_chain(bundle, settings.links, threads=settings.threads, isolate=settings.isolate, self_test=True)
    event(
        "bundle loaded",
        bundle=path,
        digest=bundle.manifest.digest,
        signer=bundle.signer.name if bundle.signer else None,
        chain=[f"{segmenter.artifact.name} on {segmenter.runtime} {segmenter.device}" for segmenter in chain],
        left_out=chain[0].skipped,
        seconds=round(perf_counter() - start, 3),
    )
    return chain


def close(chain: Chain) -> None:
    """Free the engines."""
    for segmenter in chain:
        segmenter.close()


class Reload:
    """A new chain, loaded while the old one works on; ask `take` now and then whether it is there."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._chain: Chain | None = None

    def start(self, settings: Settings) -> None:
        """Begin, where that is not being done already."""
        if self._thread is None:
            self._thread = Thread(target=self._run, args=(settings,), name="firmware-reload")
            self._thread.start()

    def take(self) -> Chain | None:
        """The new chain, once; None where there is none, or not yet."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread.join()
        chain, self._chain, self._thread = self._chain, None, None
        return chain

    def cancel(self) -> None:
        """Wait for the end of a reload that nobody wants any more."""
        if self._thread is not None:
            self._thread.join()
        close(self.take() or ())

    def _run(self, settings: Settings) -> None:
        with suppress(OSError):  # a thread inherits real-time scheduling, and loading must not take it from the engines
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        try:
            self._chain = load_first(settings)
        except EdgesegError as error:
            event("reload failed", logging.ERROR, kind=type(error).__name__, reason=str(error))
