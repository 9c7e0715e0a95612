"""Key files: made once, never overwritten, read strictly."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import BadInput, BundleError, SignatureError
from edgeseg.keys import new_key, read_private_key, read_public_key

X25519 = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END PRIVATE KEY-----
"""


def test_a_pair_is_made_and_read_again(tmp_path: Path) -> None:
    public = new_key("release", tmp_path / "keys", expires=date(2099, 12, 31))
    key = read_public_key(public)
    secret = public.with_suffix(".key")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert (key.name, key.expires) == ("release", "2099-12-31")
    assert read_private_key(secret).public_key().public_bytes_raw().hex() == key.public
    assert key.public not in secret.read_text()


def test_two_keys_of_one_name_are_two_keys(tmp_path: Path) -> None:
    assert read_public_key(new_key("a", tmp_path / "1")).id != read_public_key(new_key("a", tmp_path / "2")).id


@pytest.mark.parametrize("there", ["release.key", "release.pub"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(BadInput, match=f"{there} exists, a key is never overwritten"):
        new_key("release", tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(there, "precious")]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "release.pub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="File exists"):
        new_key("release", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["release.pub"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "two words", "a\nb", "x" * 65])
def test_a_name_is_a_plain_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="is no name for a key"):
        new_key(name, tmp_path)


def test_a_key_cannot_be_made_expired(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    with pytest.raises(BadInput, match="would have expired"):
        new_key("a", tmp_path, expires=today - timedelta(1))
    assert not read_public_key(new_key("a", tmp_path, expires=today)).expired(f"{today}T23:59:59Z")


def test_a_passphrase_locks_the_private_key(tmp_path: Path) -> None:
    secret = new_key("release", tmp_path, passphrase="correct horse").with_suffix(".key")
    assert read_private_key(secret, "correct horse")
    with pytest.raises(SignatureError, match="is encrypted: give its passphrase"):
        read_private_key(secret)
    with pytest.raises(SignatureError, match="its passphrase is another one, or it is damaged"):
        read_private_key(secret, "battery")
    with pytest.raises(BadInput, match="the passphrase is empty"):
        new_key("other", tmp_path, passphrase="")


@pytest.mark.parametrize(
    "content", [b"", b"hello", X25519.encode(), b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_private_key_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.key").write_bytes(content)
    with pytest.raises(SignatureError, match=r"a\.key is not (a private key|an Ed25519 key).* expected a .key"):
        read_private_key(tmp_path / "a.key")


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another key": lambda c: c.update(public="00" + c["public"][2:]),
    "another id": lambda c: c.update(id=c["id"][:-1] + ("0" if c["id"][-1] != "0" else "1")),
    "capitals": lambda c: c.update(public=c["public"].upper()),
    "short key": lambda c: c.update(public=c["public"][:-2]),
    "not hex": lambda c: c.update(public="x" * 64),
    "a number": lambda c: c.update(name=3),
    "a name of two lines": lambda c: c.update(name="a\nerror: b"),
    "a field more": lambda c: c.update(comment="x"),
    "a field less": lambda c: c.pop("created"),
    "another algorithm": lambda c: c.update(algorithm="RSA"),
    "a later schema": lambda c: c.update(schema=2),
    "no day": lambda c: c.update(expires="soon"),
    "a day in another form": lambda c: c.update(expires="20270131"),
    "no time": lambda c: c.update(created="2026-01-31"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_public_key_that_cannot_be_is_refused(key: Path, name: str) -> None:
    content = json.loads(key.read_text())
    CHANGES[name](content)
    key.write_text(json.dumps(content))
    with pytest.raises(SignatureError, match=r"is not a public key, expected a \.pub of `edgeseg keys new`") as caught:
        read_public_key(key)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 200_000, b'{"schema": 1, "schema": 1}'])
def test_a_public_key_is_strict_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pub").write_bytes(content)
    with pytest.raises(SignatureError, match=r"is not a public key|not a key"):
        read_public_key(tmp_path / "a.pub")


def test_a_key_that_is_missing_or_a_folder_or_endless_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="cannot be read: No such file"):
        read_public_key(tmp_path / "a.pub")
    with pytest.raises(SignatureError, match="cannot be read: Is a directory"):
        read_private_key(tmp_path)
    with (tmp_path / "a.pub").open("wb") as stream:
        os.truncate(stream.fileno(), 1 << 30)
    with pytest.raises(SignatureError, match="is larger than 64 KiB: not a key"):
        read_public_key(tmp_path / "a.pub")
