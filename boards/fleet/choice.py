"""Which of the places with the tags that were asked for can be used, and why none can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeseg.boards.hil.transport import WAIT
from edgeseg.errors import BadInput, BoardBusy, BoardError, EdgesegError, ExporterGone

if TYPE_CHECKING:
    from edgeseg.boards.fleet.session import Session


def check_tags(session: Session, tags: Mapping[str, str]) -> None:
    """Raise BadInput where no place of the fleet has the tags."""
    if any(_fits(place, tags) for place in session.places.values()):
        return
    known = sorted({f"{key}={value}" for place in session.places.values() for key, value in place.tags.items()})
    raise BadInput(f"no place of the fleet has the tags {_shown(tags)}, there are: {', '.join(known) or 'none'}")


def _fits(place: Any, tags: Mapping[str, str]) -> bool:
    return tags.items() <= {**place.tags, "name": place.name}.items()


def problem_of(session: Session, place: str, pinned: list[str]) -> EdgesegError | None:
    """Why a place cannot be used from here, None where it can; `pinned` are those whose host key is known."""
    try:
        session.service(place)
    except EdgesegError as error:
        return error
    if place not in pinned:
        return BoardError(f"place {place}: its host key is not known, expected it in [fleet.host_keys]")
    return None


def none_free(session: Session, tags: Mapping[str, str], useless: Mapping[str, str]) -> EdgesegError:
    """The error where none of the places with the tags can be had; `useless` says of some why they cannot be used."""
    fit = [place for place in session.places.values() if _fits(place, tags)]
    if useless and len(useless) == len(fit):
        return ExporterGone(f"no board with {_shown(tags)} can be used: {'; '.join(useless.values())}")
    reasons = [f"{len(fit) - len(useless)} of {len(fit)} in use", *useless.values()]
    return BoardBusy(f"no board with {_shown(tags)} is free ({'; '.join(reasons)}): {WAIT}")


def _shown(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))
