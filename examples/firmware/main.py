"""A device application around edgeseg: `python main.py firmware.toml`. See README.md beside this file.

Startup: settings, signals, bundle (signature, hashes, self-test), real-time scheduling, and only then "ready". What
ends it, ends it with an exit code that tells the service manager what to do: see faults.py.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import faults
import journal
import models
from control import Control
from health import Health
from journal import event
from loop import Loop
from settings import Settings, SettingsError, read_settings
from watchdog import Watchdog

from edgeseg import EdgesegError
from edgeseg.runtimes import realtime


def main(arguments: list[str]) -> int:
    """Run until a signal comes. Returns the exit code."""
    journal.start()
    watchdog = Watchdog()
    try:
        if len(arguments) != 1:
            raise SettingsError("expected one argument, the settings: python main.py firmware.toml")
        work(read_settings(Path(arguments[0])), watchdog)
    except (EdgesegError, SettingsError) as error:
        event("ended", logging.CRITICAL, kind=type(error).__name__, reason=str(error))
        return faults.exit_code(error)
    except Exception as error:
        event("ended", logging.CRITICAL, kind=type(error).__name__, reason=str(error), trace=error)
        return faults.exit_code(error)
    finally:
        watchdog.stopping()
    event("ended", reason="asked to")
    return faults.STOPPED


def work(settings: Settings, watchdog: Watchdog) -> None:
    """From settings to the end."""
    # Before the bundles: a request to end is heard while they are loaded, too.
    control = Control()
    chain = models.load_first(settings)
    health = Health(settings.health, settings.picture)
    if settings.priority:
        in_real_time(settings)
    watchdog.ready(f"{len(chain)} engines are loaded and tested")
    Loop(settings, chain, control, health, watchdog).run()


def in_real_time(settings: Settings) -> None:
    """Real-time scheduling for the engines, which have their threads by now, and for the stream to come."""
    found = realtime.apply(settings.priority, settings.cpus or None)
    level = logging.WARNING if found.refused else logging.INFO
    event("real time", level, scheduler=found.scheduler, locked=found.memory_locked, refused=found.refused)
    if found.priority > 1:
        # This thread shows results; it gives way to those that make them.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
