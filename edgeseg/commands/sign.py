"""`edgeseg sign`: vouch for a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgeseg.commands.keys import describe_signer, passphrase_of
from edgeseg.signing import sign_bundle


@click.command(epilog="Example: edgeseg sign head.edgeseg --key ~/keys/release.key")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key, NAME.key.")
@click.option("--pub", type=click.Path(path_type=Path), help="Its public half; NAME.pub beside it by default.")
def sign(bundle: Path, key: Path, pub: Path | None) -> None:
    """Check every file of BUNDLE, a folder, and sign it; signatures of other keys stay.

    An encrypted key asks for its passphrase, or takes it from EDGESEG_KEY_PASSPHRASE.
    """
    signer = sign_bundle(bundle, key, public=pub, passphrase=passphrase_of(key))
    click.echo(f"{bundle}: {describe_signer(signer)}")
