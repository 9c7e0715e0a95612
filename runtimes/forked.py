"""Sessions in a forked child: the threads of their engines are not there, and whoever waits for them waits for ever."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class _Session(Protocol):
    def leave_behind(self) -> None: ...


_sessions: WeakSet[_Session] = WeakSet()
_inherited: WeakSet[_Session] = WeakSet()


def watch(session: _Session) -> None:
    """Have `leave_behind` called on a session in every child that is forked while it is there."""
    _sessions.add(session)


def is_inherited(session: _Session) -> bool:
    """Whether a session was loaded by the process that this one was forked from."""
    return session in _inherited


def _leave_behind() -> None:
    _inherited.update(_sessions)
    for session in _sessions:
        session.leave_behind()


os.register_at_fork(after_in_child=_leave_behind)
