"""A board over ssh: one connection for everything, and no other board than the one that was asked for."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from pathlib import Path

from edgeseg.boards.hil.environment import BoardEntry, fingerprint
from edgeseg.boards.hil.piped import PipedTransport, last_line
from edgeseg.boards.hil.transport import Holder
from edgeseg.errors import BoardError, BoardUnreachable, WrongHostKey

_CONNECT_S = 10
_ALIVE_S, _ALIVE_COUNT = 3, 3
_LOST = 255
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_REFUSED = re.compile(r"^\S+@\S+: Permission denied \(", re.MULTILINE)  # ssh's own words, not those of a command
_WRONG_KEY = ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", "no matching host key type")


class SshTransport(PipedTransport):
    """The system's ssh, with the host key pinned, without passwords and without the user's own configuration.

    The first command, which holds the lease, is the master of the connection; the others go through it.
    """

    def __init__(self, entry: BoardEntry) -> None:
        super().__init__(entry)
        self.where = f"{entry.user}@{entry.host}:{entry.port}"
        self._folder: Path | None = None

    def open(self, holder: Holder) -> None:
        """Connect and take the board; raises as `Transport.open`."""
        if shutil.which("ssh") is None:
            raise BoardError("ssh is not there, boards over ssh need it: apt-get install openssh-client")
        key = Path(self._entry.key)
        if not key.is_file():
            raise BoardError(
                f"{self.name}: the key {key} is not there, expected the private key that the board accepts"
            )
        # Short: a socket's path has 107 characters at most.
        self._folder = Path(tempfile.mkdtemp(prefix="edgeseg-", dir="/tmp"))
        known = self._folder / "known_hosts"
        known.write_text(f"{self._alias} {self._entry.host_key}\n", encoding="ascii")
        super().open(holder)

    def close(self) -> None:
        """As `Transport.close`."""
        super().close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def _alias(self) -> str:
        return f"edgeseg-{self.name}"

    def _first_command(self, command: list[str]) -> list[str]:
        return [*self._ssh("yes"), shlex.join(command)]

    def _next_command(self, command: list[str]) -> list[str]:
        # Without its master it must not connect by itself: the lease would be gone.
        return [*self._ssh("no", "-o", "ProxyCommand=false"), shlex.join(command)]

    def _ssh(self, master: str, *more: str) -> list[str]:
        if self._folder is None:
            raise BoardUnreachable(f"{self.name}: not connected to {self.where}")
        options = {
            "BatchMode": "yes",
            "CheckHostIP": "no",
            "ConnectTimeout": _CONNECT_S,
            "ControlMaster": master,
            "ControlPath": self._folder / "c",
            "ControlPersist": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlgorithms": _algorithms(self._entry.host_key.split()[0]),
            "HostKeyAlias": self._alias,
            "IdentitiesOnly": "yes",
            "IdentityFile": self._entry.key,
            # Why two sides do not find to each other is said at INFO; what commands say must stay theirs.
            "LogLevel": "INFO" if master == "yes" else "ERROR",
            "Port": self._entry.port,
            "PreferredAuthentications": "publickey",
            "ServerAliveCountMax": _ALIVE_COUNT,
            "ServerAliveInterval": _ALIVE_S,
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": self._folder / "known_hosts",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-T", *words, *more, "-l", self._entry.user, "--", self._entry.host]

    def _failed(self, returncode: int | None, errors: str) -> BoardError:
        if any(words in errors for words in _WRONG_KEY):
            seen = _FINGERPRINT.search(errors)
            other = seen[0] if seen else last_line(errors)
            return WrongHostKey(
                f"{self.name}: {self.where} shows the host key {other}, expected {fingerprint(self._entry.host_key)}: "
                "another machine answers, or the board was set up anew; compare on the board before you change it"
            )
        if _REFUSED.search(errors):
            return BoardError(
                f"{self.name}: {self.where} does not accept the key {self._entry.key}: "
                "add its .pub to ~/.ssh/authorized_keys there"
            )
        said = last_line(errors) if errors.strip() else "the connection was lost"
        if returncode in (_LOST, None) or returncode < 0:
            return BoardUnreachable(f"{self.name}: no connection to {self.where}: {said}")
        return BoardError(f"{self.name}: {self._entry.python} cannot be run on {self.where}: {said}")


def _algorithms(kind: str) -> str:
    # The key is the same, the signatures are newer.
    return "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind
