"""This machine as a board."""

from __future__ import annotations

from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.piped import PipedTransport, last_line
from edgeseg.errors import BoardError


class LocalTransport(PipedTransport):
    """Runs commands here, by the same scripts as on any other board."""

    def __init__(self, entry: BoardEntry) -> None:
        super().__init__(entry)
        self.where = "this machine"

    def _first_command(self, command: list[str]) -> list[str]:
        return command

    def _next_command(self, command: list[str]) -> list[str]:
        return command

    def _failed(self, returncode: int | None, errors: str) -> BoardError:
        said = last_line(errors) if errors.strip() else f"exit code {returncode}"
        return BoardError(f"{self.name}: {self._entry.python} failed here: {said}")
