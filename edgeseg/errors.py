"""Every error edgeseg raises on purpose.

    EdgesegError
    |- BundleError                    a bundle cannot be read, written or trusted
    |  |- BundleTooNew                written by a newer edgeseg
    |  |- SignatureError              not signed by a key that is trusted
    |- MissingDependency              (also ImportError) an engine or extra is not installed
    |- ConversionError                a source cannot be loaded or turned into an artifact
    |  |- UnsupportedModel            the model has something no target can express
    |  |- GateFailed                  the result differs too much from its source
    |- InferenceError                 an artifact cannot be loaded or run
    |  |- BadInput                    (also ValueError) a frame, file, folder or option is not what it must be
    |  |- NoSuchDevice                the device asked for does not exist or does not work here
    |  |- ExecutionMismatch           the engine ran something else than what was asked for
    |  |- EngineCrashed               an engine in a process of its own died
    |  |- EngineTimeout               an engine in a process of its own took too long, and was killed
    |  |- SelfTestFailed              an artifact does not do here what it did when it was made
    |  |- StreamFailed                no segmenter of a stream's chain is left
    |- BoardError                     something on the board under test
       |- BoardUnreachable            no connection, or it was lost
       |  |- CoordinatorUnreachable   the coordinator of the fleet does not answer
       |  |- ExporterGone             nobody offers the board of a place any more
       |- BoardTimeout                no answer in time
       |- BoardBusy                   another runner has it
       |- BoardUnfit                  it cannot run what it was asked to
       |- ProofFailed                 a bundle did not keep to a limit on it, or did not verify there
       |- ExporterMismatch            the exporter of its place has another labgrid than this runner
       |- WrongHostKey                another machine answers in its place

A message says what failed, what was expected and what to do, in one line.
"""

from __future__ import annotations


class EdgesegError(Exception):
    """Base of every error edgeseg raises on purpose."""


class BundleError(EdgesegError):
    """A bundle cannot be read, written or trusted."""


class BundleTooNew(BundleError):
    """The bundle was written by a newer edgeseg than this one."""


class SignatureError(BundleError):
    """The bundle is not signed by a trusted key."""


class MissingDependency(EdgesegError, ImportError):
    """An optional package is not installed.

    Raised only when the package itself is absent; an ImportError from inside an installed package passes through.
    """

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        self.package = package
        self.needed_for = needed_for
        self.extra = extra
        self.command = f"pip install 'edgeseg[{extra}]'"
        super().__init__(f"{package} is not installed, {needed_for} needs it: {self.command}")


class ConversionError(EdgesegError):
    """A source cannot be loaded or turned into an artifact."""


class UnsupportedModel(ConversionError):
    """The model has something that a target cannot express."""


class GateFailed(ConversionError):
    """A converted model differs from its source by more than its gate allows."""


class InferenceError(EdgesegError):
    """An artifact cannot be loaded or run."""


class BadInput(InferenceError, ValueError):
    """A frame, file, folder or option is not what it must be."""


class NoSuchDevice(InferenceError):
    """The requested device does not exist, or does not work, on this machine."""


class ExecutionMismatch(InferenceError):
    """The engine ran on another device or in another precision than was asked for."""


class SelfTestFailed(InferenceError):
    """An artifact does not do on this machine what it did when it was converted."""


class StreamFailed(InferenceError):
    """A stream came to an end because no segmenter of its chain is left."""


class EngineCrashed(InferenceError):
    """An engine that ran in a process of its own died, or answered what no engine answers."""


class EngineTimeout(InferenceError):
    """An engine that ran in a process of its own took longer than its limit, and was killed."""


class BoardError(EdgesegError):
    """Something went wrong on the board under test."""


class BoardUnreachable(BoardError):
    """No connection to the board, or it was lost."""


class CoordinatorUnreachable(BoardUnreachable):
    """The coordinator of the fleet does not answer, or went away."""


class ExporterGone(BoardUnreachable):
    """Nobody offers the board of a place: its exporter is not connected to the coordinator."""


class ExporterMismatch(BoardError):
    """The exporter of a board's place has another major version of labgrid than this runner."""


class BoardTimeout(BoardError):
    """The board did not answer in time."""


class BoardBusy(BoardError):
    """Another runner has the board.

    Attributes:
        run: id of the run that has it, "" where that is not known.
    """

    def __init__(self, message: str, run: str = "") -> None:
        super().__init__(message)
        self.run = run


class BoardUnfit(BoardError):
    """The board cannot run what it was asked to."""


class ProofFailed(BoardError):
    """A bundle did not do on a board what it must: a limit was not kept, or it did not verify there."""


class WrongHostKey(BoardError):
    """Another machine answers in the board's place, or the board has a new host key."""
