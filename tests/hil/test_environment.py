"""The environment file, and what is wrong with it in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.boards.hil.environment import Limits, fingerprint, read_environment
from edgeseg.errors import BadInput

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
GITHUB = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"  # as GitHub publishes it for this key
LAB = f"""
[limits]
p99_ms = 20.0

[measures]
soak_minutes = 0.5

[[boards]]
name = "cart-1"
host = "10.0.0.2"
user = "root"
key = "keys/cart"
host_key = "{HOST_KEY}"

[[boards]]
name = "cart-2"
transport = "local"
limits = {{ fps = 30.0 }}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(text)
    return path


def test_boards_get_what_holds_for_all_unless_they_say_otherwise(tmp_path):
    lab = read_environment(write(tmp_path, LAB))
    one, two = lab.board("cart-1"), lab.board("cart-2")
    assert (one.limits, two.limits) == (Limits(p99_ms=20.0), Limits(fps=30.0))
    assert one.measures.soak_minutes == two.measures.soak_minutes == 0.5
    assert one.key == str(tmp_path / "keys/cart")
    assert (one.port, one.transport, two.transport) == (22, "ssh", "local")


def test_a_fingerprint_is_the_one_that_ssh_shows():
    assert fingerprint(HOST_KEY) == GITHUB


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("p99_ms = 20.0", "p99ms = 20.0", "unknown key 'p99ms' in limits, did you mean 'p99_ms'?"),
        ("p99_ms = 20.0", 'p99_ms = "fast"', "limits.p99_ms: Expected `float | null`, got `str`"),
        ('user = "root"', 'usr = "root"', "unknown key 'usr' in boards[0], did you mean 'user'?"),
        ('user = "root"', "", "boards.cart-1.user is missing, a board over ssh needs it"),
        ('user = "root"', 'user = "-oProxyCommand=x"', "begins with a hyphen"),
        (HOST_KEY, "ssh-ed25519 AAAA", "boards.cart-1.host_key: expected a line as in 'ssh-ed25519 AAAA...'"),
        (HOST_KEY, HOST_KEY.replace("ssh-ed25519", "ssh-rsa"), "boards.cart-1.host_key: expected a line"),
        ('transport = "local"', 'transport = "telnet"', "boards[1].transport: Invalid enum value 'telnet'"),
        ("cart-2", "cart-1", "there are two boards 'cart-1'"),
        ("cart-2", "a b", "'a b' cannot name a board"),
        ('transport = "local"', 'transport = "local"\nwork = "here"', "must be whole paths on the board"),
        ("[[boards]]", "[[board]]", "unknown key 'board', did you mean 'boards'?"),
        ("[limits]", "[limits", "is not a valid environment"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(old, new, message, tmp_path):
    with pytest.raises(BadInput) as caught:
        read_environment(write(tmp_path, LAB.replace(old, new)))
    assert message in str(caught.value)
    assert "lab.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


FLEET = f"""
[fleet]
coordinator = "lab:20408"
host_keys = {{ cart-1 = "{HOST_KEY}", cart-2 = "{HOST_KEY}" }}

[[boards]]
name = "one"
transport = "labgrid"
place = "cart-1"
key = "keys/lab"

[[boards]]
name = "cart-2"
transport = "labgrid"
key = "keys/lab"

[[boards]]
name = "any"
transport = "labgrid"
filter = {{ board = "intel-n100" }}
key = "keys/lab"
coordinator = "other"
"""


def test_boards_of_a_fleet_know_where_to_ask_and_whom_to_believe(tmp_path):
    lab = read_environment(write(tmp_path, FLEET))
    one, two, any_board = (lab.board(name) for name in ("one", "cart-2", "any"))
    assert (one.place, two.place, any_board.place) == ("cart-1", "cart-2", "")
    assert (one.coordinator, any_board.coordinator) == ("lab:20408", "other")
    assert set(one.host_keys) == set(any_board.host_keys) == {"cart-1", "cart-2"}
    assert one.key == str(tmp_path / "keys/lab")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('coordinator = "lab:20408"', 'coordinater = "lab:20408"', "unknown key 'coordinater' in fleet, did you mean"),
        ('coordinator = "lab:20408"', 'coordinator = "http://lab"', "the coordinator 'http://lab' is none, expected"),
        (f'cart-1 = "{HOST_KEY}", ', "", "boards.one.host_key is missing, and [fleet.host_keys] has none of cart-1"),
        (HOST_KEY, "ssh-ed25519 AAAA", "host_keys.cart-1: expected a line as in 'ssh-ed25519 AAAA...'"),
        ('key = "keys/lab"', "", "boards.one.key is missing, a board over labgrid needs it"),
        ('place = "cart-1"', 'place = "a/b"', "boards.one.place: 'a/b' cannot name a place"),
        ('board = "intel-n100"', 'Board = "x"', "boards.any.filter: Board = 'x' is no tag"),
        ("filter =", 'place = "cart-1"\nfilter =', "boards.any: a filter is for any board that fits, leave out place"),
        (
            '"labgrid"\nkey',
            '"local"\nplace = "x"\nkey',
            'boards.cart-2.place is of a fleet, expected transport = "labgrid"',
        ),
    ],
)
def test_what_is_wrong_with_a_fleet_is_said_in_one_line(old, new, message, tmp_path):
    assert old in FLEET
    with pytest.raises(BadInput) as caught:
        read_environment(write(tmp_path, FLEET.replace(old, new)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_board_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(BadInput, match=r"unknown board 'cart-3', expected one of cart-1, cart-2"):
        read_environment(write(tmp_path, LAB)).board("cart-3")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere.toml cannot be read: No such file"):
        read_environment(tmp_path / "nowhere.toml")
