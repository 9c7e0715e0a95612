"""`edgeseg sbom`: to a file, to standard output, and what it says of a chain that is not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgeseg import plugins
from edgeseg.manifest import MANIFEST, seal

Invoke = Callable[..., Result]


def test_to_a_file_and_to_standard_output(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("sbom", bundle, "-o", tmp_path / "tiny.cdx.json")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    written = (tmp_path / "tiny.cdx.json").read_text()
    assert json.loads(written)["bomFormat"] == "CycloneDX"
    assert invoke("sbom", bundle).stdout == written
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.cdx.json"]


def test_a_packed_bundle_has_the_same(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "tiny.tar.xz"
    assert invoke("pack", bundle, "-o", packed).exit_code == 0
    assert invoke("sbom", packed).stdout == invoke("sbom", bundle).stdout


def test_a_broken_chain_is_said_beside_the_document(invoke: Invoke, bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / MANIFEST).read_text())
    del manifest["provenance"]["source"]["sha256"]
    (bundle_copy / MANIFEST).write_bytes(seal(manifest))
    result = invoke("sbom", bundle_copy)
    assert result.exit_code == 0
    assert "not tied by hash: the source has no hash\n" in result.stderr
    assert "the source has no hash" in json.dumps(json.loads(result.stdout)["metadata"]["component"])


def test_a_changed_bundle_has_none(invoke: Invoke, bundle_copy: Path, tmp_path: Path) -> None:
    with (bundle_copy / "artifacts" / "model.fp32.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"\0\0\0")
    result = invoke("sbom", bundle_copy, "-o", tmp_path / "out.json")
    assert result.exit_code == 1
    assert "SHA-256" in result.stderr
    assert not (tmp_path / "out.json").exists()


def test_without_the_library_the_extra_is_named(invoke: Invoke, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "find_spec", lambda name: None if name == "cyclonedx" else object())
    result = invoke("sbom", bundle)
    assert result.exit_code == 1
    assert result.stderr == (
        "error: cyclonedx-python-lib is not installed, a bill of materials needs it: pip install 'edgeseg[report]'\n"
    )


def test_an_output_that_cannot_be_written_is_bad_usage(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("sbom", bundle, "-o", tmp_path / "absent" / "out.json")
    assert result.exit_code == 2
    assert "is not a folder that can be written" in result.stderr
