"""Which boards a run is to have, by name: this machine, emulated ones, those of an environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeseg.boards.hil.environment import LOCAL, BoardEntry, Environment, local_board, read_environment
from edgeseg.errors import BadInput


def chosen_boards(names: Sequence[str], environment: Path | None) -> list[BoardEntry]:
    """Entries of the boards named, or of all of an environment, each complete.

    Raises BadInput where neither is given, there is no board of a name, or the environment is not valid.
    """
    from edgeseg.boards.emulated.board import list_boards

    if not names and environment is None:
        raise BadInput("which board? Name one, or an environment")
    known = read_environment(environment) if environment else Environment(boards=())
    if not names:
        return [known.board(entry.name) for entry in known.boards]
    have = {entry.name for entry in known.boards}
    emulated = {} if set(names) <= have else {board.name: board for board in list_boards()}
    found = []
    for name in dict.fromkeys(names):
        if name not in have and (name == LOCAL or name in emulated):
            entry = local_board() if name == LOCAL else emulated[name].entry()
            known = Environment(boards=(*known.boards, entry), limits=known.limits, measures=known.measures)
        elif name not in have:
            raise BadInput(f"unknown board {name!r}, expected one of {', '.join([LOCAL, *sorted(have), *emulated])}")
        found.append(known.board(name))
    return found
