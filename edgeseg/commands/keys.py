"""`edgeseg keys`: make the keys that sign bundles, and look at them."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import click

from edgeseg.errors import BadInput
from edgeseg.keys import PRIVATE_SUFFIX, PublicKey, is_encrypted, new_key, now, read_public_key, short_id
from edgeseg.trust import TRUSTED_KEYS
from edgeseg.types import Signer

PASSPHRASE = "EDGESEG_KEY_PASSPHRASE"

key_option = click.option(
    "--key",
    "trusted",
    type=click.Path(path_type=Path),
    multiple=True,
    help=f"A public key (.pub) to trust, or a folder of them; repeatable. {TRUSTED_KEYS} by default.",
)


@click.group("keys", epilog="Example:  edgeseg keys new release --expires 2027-12-31", short_help="Make and show keys.")
def keys() -> None:
    """Make the keys that sign bundles, and look at them."""


@keys.command("new", epilog="Example:  edgeseg keys new release -o ~/keys --expires 2027-12-31 --passphrase")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="Folder; this one by default.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="The last day (UTC) on which the key may sign.")
@click.option("--passphrase", is_flag=True, help=f"Encrypt the private key; asked for, or taken from {PASSPHRASE}.")
def new(name: str, output: Path, expires: datetime | None, passphrase: bool) -> None:
    """Write NAME.key, which signs and stays secret, and NAME.pub, which devices trust. Nothing is overwritten."""
    secret = _ask(f"passphrase for {name}{PRIVATE_SUFFIX}", confirm=True) if passphrase else None
    public = new_key(name, output, expires=expires.date() if expires else None, passphrase=secret)
    click.echo(f"{public.with_name(name + PRIVATE_SUFFIX)}: signs; keep it secret, and off the devices")
    click.echo(f"{public}: goes to the folder of trusted keys of each device")
    _show(read_public_key(public))


@keys.command("show", epilog="Example:  edgeseg keys show release.pub")
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Say what FILE, a public key, is."""
    _show(read_public_key(file))


def passphrase_of(key: Path) -> str | None:
    """The passphrase of a private key, from the environment or the terminal; None where it needs none."""
    return _ask(f"passphrase for {key}", confirm=False) if is_encrypted(key) else None


def describe_signer(signer: Signer) -> str:
    """Who signed, and when, for people."""
    return f"signed by {signer.name} ({short_id(signer.key_id)}) at {signer.signed_at}"


def _ask(question: str, confirm: bool) -> str:
    given = os.environ.get(PASSPHRASE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise BadInput(f"no terminal to ask for the {question}: set {PASSPHRASE}")
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def _show(key: PublicKey) -> None:
    state = f"{key.expires}{' (expired)' if key.expired(now()) else ''}" if key.expires else "never"
    for label, value in (("name", key.name), ("id", key.id), ("created", key.created), ("expires", state)):
        click.echo(f"  {label:8} {value}")
