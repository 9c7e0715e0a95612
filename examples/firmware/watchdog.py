"""What systemd wants to hear from a service: that it is ready, that it is alive, that it ends. See sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic


class Watchdog:
    """Messages to the service manager; outside of one, nothing happens.

    `alive` belongs where the work is done, not into a thread or timer of its own: that one would go on telling that all
    is well while the work stands still.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero byte of a name that is in no folder.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 if mine else 0.0
        self._told_s = -1e9
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        """Startup is over: what waits for this service may start."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """The work goes on; sent four times in a period at most, however often it is called."""
        now = monotonic()
        if self._period_s and now - self._told_s >= self._period_s / 4:
            self._told_s = now
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._address:
            # A manager that does not listen is no reason to stop work.
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)
