"""The one cable of an emulated board: a pair of virtual interfaces, one end here, the other inside."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from edgeseg.errors import BoardError

_NET = "10.77"
_LAST = 250
# A link for each number that is taken, to the board's folder: all boards of this machine, wherever their folders lie.
NUMBERS = Path("/run/edgeseg-boards")


def run(*words: str | Path, input_text: str | None = None) -> str:
    """A command of the system. Raises BoardError in one line where it fails."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, input=input_text, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise BoardError(f"{' '.join(command)} took longer than 60 s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BoardError(f"{' '.join(command)} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


def check_tools() -> None:
    """Raise BoardError, with the command that installs it, for the first tool that is missing."""
    for tool, package in (
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("mkfs.ext4", "e2fsprogs"),
        ("ssh", "openssh-client"),
        ("ssh-keygen", "openssh-client"),
        ("/usr/sbin/sshd", "openssh-server"),
    ):
        if shutil.which(tool) is None:
            raise BoardError(f"{tool} is not there, an emulated board needs it: apt-get install {package}")


def reserve_number(folder: Path) -> int:
    """A number whose network nothing here uses; the board's for as long as its folder is there.

    To be called by one process at a time. Raises BoardError where all are taken.
    """
    used = {int(n) for n in re.findall(rf"\b{re.escape(_NET)}\.(\d+)\.", run("ip", "-o", "-4", "addr"))}
    for number in range(1, _LAST + 1):
        link = NUMBERS / str(number)
        if number not in used and not link.exists():
            link.unlink(missing_ok=True)  # its board was removed by something else
            link.symlink_to(folder)
            return number
    raise BoardError(f"all networks of {_NET}.0.0/16 are in use: take emulated boards down first")


def release_number(number: int) -> None:
    """Give a number back."""
    (NUMBERS / str(number)).unlink(missing_ok=True)


def interface(number: int) -> str:
    """The name of this machine's end."""
    return f"edgeseg{number}"


def address(number: int) -> str:
    """Of the board."""
    return f"{_NET}.{number}.2"


def connect(number: int, pid: int) -> None:
    """Lay the cable into the network namespace of a process."""
    here = interface(number)
    run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run("ip", "addr", "add", f"{_NET}.{number}.1/30", "dev", here)
    run("ip", "link", "set", here, "up")
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
    run(*inside, "addr", "add", f"{address(number)}/30", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "link", "set", "lo", "up")


def disconnect(number: int) -> None:
    """Take the cable away, if it is still there."""
    place = Path("/sys/class/net") / interface(number)
    try:
        if place.exists():
            run("ip", "link", "del", interface(number))
    except BoardError:
        if place.exists():  # it may have gone with the namespace of its other end meanwhile
            raise


def plug(number: int, *, plugged: bool) -> None:
    """Plug the cable in or out."""
    run("ip", "link", "set", interface(number), "up" if plugged else "down")
