"""`edgeseg install`: put a bundle where a device runs it from."""

from __future__ import annotations

from pathlib import Path

import click

from edgeseg.commands.keys import describe_signer, key_option
from edgeseg.install import Version, install

_SHOWN_DIGEST = 12


@click.command("install", epilog="Example: edgeseg install head.tar.xz /opt/head.edgeseg --key /etc/edgeseg/keys")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@key_option
@click.option("--unsigned", is_flag=True, help="Accept a bundle that nobody signed, where no keys are set.")
@click.option("--allow-older", is_flag=True, help="Accept a bundle made before the one that is at TARGET.")
def install_bundle(
    source: Path, target: Path, trusted: tuple[Path, ...], unsigned: bool, allow_older: bool
) -> None:
    """Check SOURCE, a bundle folder or file, and make it the bundle at TARGET, whatever interrupts that.

    At every moment TARGET is the older bundle or the new one, whole. A trusted key must have signed SOURCE.
    """
    if unsigned and trusted:
        raise click.UsageError("--unsigned and --key contradict each other")
    done = install(source, target, trusted_keys=trusted or None, unsigned=unsigned, allow_older=allow_older)
    signer = describe_signer(done.bundle.signer) if done.bundle.signer else "nobody's signature was asked for"
    click.echo(f"{target}: installed {_describe(done.version)}, {signer}")
    if done.replaced:
        click.echo(f"{target}: in place of {_describe(done.replaced)}")


def _describe(version: Version) -> str:
    return f"{version.name}, made {version.created or 'nobody knows when'}, {version.digest[:_SHOWN_DIGEST]}"
