"""`edgeseg keys`, `sign`, `verify --key` and `install`, and the setting that all commands obey."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeseg import open_bundle
from edgeseg.cli import main
from edgeseg.keys import encode_public_key, read_private_key, read_public_key
from edgeseg.manifest import MANIFEST, SIGNATURE, seal
from edgeseg.signing import sign_bundle

Invoke = Callable[..., Result]


def line(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr


@pytest.fixture
def key(invoke: Invoke, tmp_path: Path) -> Path:
    assert invoke("keys", "new", "release", "-o", tmp_path / "keys").exit_code == 0
    return tmp_path / "keys" / "release.pub"


@pytest.fixture
def other(invoke: Invoke, tmp_path: Path) -> Path:
    assert invoke("keys", "new", "other", "-o", tmp_path / "others").exit_code == 0
    return tmp_path / "others" / "other.pub"


@pytest.fixture
def signed(invoke: Invoke, bundle_copy: Path, key: Path) -> Path:
    done = invoke("sign", bundle_copy, "--key", key.with_suffix(".key"))
    assert done.exit_code == 0, done.output
    assert f"signed by release ({read_public_key(key).id[:12]}) at " in done.output
    return bundle_copy


def test_a_new_key_is_shown_and_never_overwritten(invoke: Invoke, tmp_path: Path) -> None:
    first = invoke("keys", "new", "release", "-o", tmp_path, "--expires", "2099-12-31")
    assert first.exit_code == 0, first.output
    key = read_public_key(tmp_path / "release.pub")
    assert all(text in first.output for text in ("release.key: signs; keep it secret", key.id, "2099-12-31"))
    assert key.public not in invoke("keys", "show", tmp_path / "release.pub").output
    assert key.id in invoke("keys", "show", tmp_path / "release.pub").output
    assert "is never overwritten" in line(invoke("keys", "new", "release", "-o", tmp_path))
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600


def test_an_expired_key_is_said_to_be(invoke: Invoke, key: Path) -> None:
    key.write_bytes(encode_public_key(replace(read_public_key(key), expires="2026-01-31")))
    assert "2026-01-31 (expired)" in invoke("keys", "show", key).output


def test_a_private_key_is_not_shown(invoke: Invoke, key: Path) -> None:
    assert "is not a public key" in line(invoke("keys", "show", key.with_suffix(".key")))


def test_bad_usage_exits_2(invoke: Invoke, tmp_path: Path) -> None:
    assert "expires" in line(invoke("keys", "new", "a", "-o", tmp_path, "--expires", "soon"), 2)
    assert "--key" in line(invoke("sign", tmp_path), 2)
    assert "contradict" in line(invoke("install", tmp_path, tmp_path / "x", "--unsigned", "--key", tmp_path), 2)


def test_a_passphrase_comes_from_the_environment_or_there_is_one_error(
    invoke: Invoke, bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_KEY_PASSPHRASE", "correct horse")
    made = invoke("keys", "new", "locked", "-o", tmp_path, "--passphrase")
    assert made.exit_code == 0, made.output
    assert "correct horse" not in made.output
    assert read_private_key(tmp_path / "locked.key", "correct horse")
    assert invoke("sign", bundle_copy, "--key", tmp_path / "locked.key").exit_code == 0
    monkeypatch.setenv("EDGESEG_KEY_PASSPHRASE", "battery")
    assert "its passphrase is another one" in line(invoke("sign", bundle_copy, "--key", tmp_path / "locked.key"))
    monkeypatch.delenv("EDGESEG_KEY_PASSPHRASE")
    assert "set EDGESEG_KEY_PASSPHRASE" in line(invoke("sign", bundle_copy, "--key", tmp_path / "locked.key"))


def test_verify_says_who_signed(invoke: Invoke, signed: Path, key: Path) -> None:
    done = invoke("verify", signed, "--key", key, "--runtime", "onnxruntime")
    assert done.exit_code == 0, done.output
    assert f"signed by release ({read_public_key(key).id[:12]}) at " in done.output


def test_verify_refuses_before_all_else(
    invoke: Invoke, signed: Path, bundle: Path, key: Path, other: Path, tmp_path: Path
) -> None:
    assert "is signed by the unknown key" in line(invoke("verify", signed, "--key", other, "--json", tmp_path / "j"))
    assert "is not signed, expected a signature by release" in line(invoke("verify", bundle, "--key", key.parent))
    content = json.loads((signed / MANIFEST).read_text())
    content["gates"]["agreement_min"] = 0.0
    (signed / MANIFEST).write_bytes(seal(content))
    shutil.rmtree(signed / "artifacts")
    assert "is not what release" in line(invoke("verify", signed, "--key", key, "--key", other))
    assert not (tmp_path / "j").exists()


def test_verify_refuses_a_key_that_has_expired_since(
    invoke: Invoke, signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = open_bundle(signed, trusted_keys=key).signer
    assert signer is not None
    key.write_bytes(encode_public_key(replace(read_public_key(key), expires=signer.signed_at[:10])))
    monkeypatch.setattr("edgeseg.commands.verify.now", lambda: "2099-01-01T00:00:00Z")
    assert "which expired on" in line(invoke("verify", signed, "--key", key))
    assert open_bundle(signed, trusted_keys=key)


@pytest.mark.parametrize("command", ["run", "bench", "inspect", "verify", "pack"])
def test_the_setting_makes_unsigned_bundles_an_error_in_every_command(
    command: str, bundle: Path, frames: Path, key: Path, tmp_path: Path
) -> None:
    arguments = {"run": [frames / "images", "-o", tmp_path / "out"], "pack": ["-o", tmp_path / "out"]}
    words = [command, str(bundle), *map(str, arguments.get(command, []))]
    result = CliRunner(env={"EDGESEG_TRUSTED_KEYS": str(key.parent)}).invoke(main, words)
    assert "is not signed, expected a signature by release" in line(result)
    assert not (tmp_path / "out").exists()
    nothing = CliRunner(env={"EDGESEG_TRUSTED_KEYS": ""}).invoke(main, words)
    assert "there is no key in EDGESEG_TRUSTED_KEYS" in line(nothing)


def test_a_signed_bundle_is_packed_installed_and_said_to_be(
    invoke: Invoke, signed: Path, key: Path, tmp_path: Path
) -> None:
    packed, place = tmp_path / "b.tar.xz", tmp_path / "device" / "b.edgeseg"
    there = invoke("pack", signed, "-o", packed)
    files = sum(p.is_file() for p in signed.rglob("*"))
    assert f"{files} files" in there.output
    back = invoke("unpack", packed, "-o", tmp_path / "back", "--key", key)
    assert back.exit_code == 0, back.output
    assert (tmp_path / "back" / SIGNATURE).read_bytes() == (signed / SIGNATURE).read_bytes()
    first = invoke("install", packed, place, "--key", key.parent)
    assert first.exit_code == 0, first.output
    manifest = open_bundle(signed).manifest
    version = f"{manifest.name}, made {manifest.provenance.created}, {manifest.digest[:12]}"
    assert first.output.startswith(f"{place}: installed {version}, signed by release (")
    assert "in place of" not in first.output
    assert f"{place}: in place of {version}" in invoke("install", packed, place, "--key", key).output
    assert open_bundle(place, trusted_keys=key).signer


def test_install_asks_for_keys_or_for_the_word(
    invoke: Invoke, bundle: Path, signed: Path, other: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    assert "give --key, set EDGESEG_TRUSTED_KEYS, or say --unsigned" in line(invoke("install", bundle, place))
    assert "unknown key" in line(invoke("install", signed, place, "--key", other))
    assert not place.exists()
    done = invoke("install", bundle, place, "--unsigned")
    assert done.exit_code == 0, done.output
    assert "nobody's signature was asked for" in done.output


def test_install_refuses_an_older_bundle_unless_told(
    invoke: Invoke, signed: Path, key: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    assert invoke("install", signed, place, "--key", key).exit_code == 0
    content = json.loads((signed / MANIFEST).read_text())
    content["provenance"]["created"] = "2020-01-01T00:00:00+00:00"
    (signed / MANIFEST).write_bytes(seal(content))
    sign_bundle(signed, key.with_suffix(".key"))
    assert "say --allow-older to do it" in line(invoke("install", signed, place, "--key", key))
    assert invoke("install", signed, place, "--key", key, "--allow-older").exit_code == 0
    assert open_bundle(place).manifest.provenance.created == "2020-01-01T00:00:00+00:00"
