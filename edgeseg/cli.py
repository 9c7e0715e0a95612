"""The `edgeseg` command: a lazy group, so that `edgeseg --help` imports no engine and no subcommand."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from edgeseg import __version__
from edgeseg.errors import EdgesegError
from edgeseg.plugins import load_attribute

COMMANDS = {
    "bench": ("edgeseg.commands.bench:bench", "Measure speed and accuracy of every artifact, interleaved."),
    "boards": ("edgeseg.commands.boards:boards", "List, show and detect boards."),
    "convert": ("edgeseg.commands.convert:convert", "Turn a trained model into a bundle of verified artifacts."),
    "demo": ("edgeseg.commands.demo:demo", "Do the main job on the embedded sample, start to end."),
    "distill": ("edgeseg.commands.distill:distill", "Teach a small, fast student what a trained model knows."),
    "doctor": ("edgeseg.commands.doctor:doctor", "Explain what is wrong on this board, and how to fix it."),
    "frontier": ("edgeseg.commands.frontier:frontier", "Draw accuracy against latency and size, of any set of models."),
    "fuzz": ("edgeseg.commands.fuzz:fuzz", "Mutate, spoil and kill: what must not get through."),
    "hil": ("edgeseg.commands.hil:hil", "Prove bundles on boards: deploy, verify, bench, soak, record."),
    "inspect": ("edgeseg.commands.inspect:inspect", "Say what a bundle is, and what each of its layers costs."),
    "install": ("edgeseg.commands.install:install_bundle", "Put a signed bundle where a device runs it from."),
    "keys": ("edgeseg.commands.keys:keys", "Make the keys that sign bundles, and show them."),
    "pack": ("edgeseg.commands.pack:pack_bundle", "Write a bundle as one compressed file."),
    "report": ("edgeseg.commands.report:report", "Write one page with all evidence of a release."),
    "run": ("edgeseg.commands.run:run", "Segment an image, a folder, a clip or a DICOM file."),
    "runtimes": ("edgeseg.commands.runtimes:runtimes", "List the engines proven usable here, and why others are not."),
    "sbom": ("edgeseg.commands.sbom:sbom", "Write what a bundle is made of, as CycloneDX."),
    "sign": ("edgeseg.commands.sign:sign", "Sign a bundle."),
    "soak": ("edgeseg.commands.soak:soak", "Stream for a long time and hold it to its deadlines."),
    "stream": ("edgeseg.commands.stream:stream", "Segment a live source, every result within its deadline."),
    "train": ("edgeseg.commands.train:train", "Train a reference segmenter on a frames folder."),
    "unpack": ("edgeseg.commands.unpack:unpack_bundle", "Turn the one compressed file into a bundle again."),
    "verify": ("edgeseg.commands.verify:verify", "Prove a bundle against its source's results."),
}


class LazyGroup(click.Group):
    """Imports a subcommand when it is named, and turns every expected error into one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand; None where there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = load_attribute(COMMANDS[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and exit 0 on success, 1 on a failed gate or run, 2 on bad usage."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "edgeseg"
            _fail(f"{path}: {error.format_message()} (see {path} --help)", 2)
        except click.ClickException as error:
            _fail(error.format_message(), 1)
        except (click.Abort, KeyboardInterrupt):
            _fail("interrupted", 130)
        except EdgesegError as error:
            _reraise_in_debug(error)
            _fail(str(error), 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # The reader of our output went away, as in `edgeseg bench | head`; python would complain again at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            _reraise_in_debug(error)
            _fail(f"{error.filename or 'file'}: {error.strerror or error}", 1)
        sys.exit(code if isinstance(code, int) else 0)


_debug = False


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    global _debug
    _debug = ctx.meta["edgeseg.debug"] = value


def _reraise_in_debug(error: BaseException) -> None:
    if _debug:
        raise error


def _fail(message: str, code: int) -> None:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgeseg")
@click.option("--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set_debug, help="Show tracebacks.")
def main() -> None:
    """Put trained ultrasound segmenters onto the devices that need them.

    \b
    Try it:            edgeseg demo -o demo
    Your own model:    edgeseg convert model.safetensors --calibration frames -o head.edgeseg
    On the device:     edgeseg run head.edgeseg clip.mp4 -o masks
    Live:              edgeseg stream head.edgeseg camera:0
    What is wrong:     edgeseg doctor
    """


if __name__ == "__main__":
    main()
