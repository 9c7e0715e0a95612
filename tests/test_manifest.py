"""The manifest's published schema fits the code and the bundles; its strict reading and canonical form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgeseg import BundleError, BundleTooNew, open_bundle
from edgeseg.manifest import MANIFEST, SCHEMA, canonical, decode_manifest, digest, parse_manifest, seal
from edgeseg.manifest_schema import manifest_schema

PUBLISHED = Path(__file__).parents[1] / "docs" / "manifest.schema.json"


@pytest.fixture
def content(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle that was converted for real."""
    found: dict[str, Any] = json.loads((bundle / MANIFEST).read_text())
    return found


def first_schema(content: dict[str, Any]) -> dict[str, Any]:
    """The same manifest as an edgeseg of schema 1 wrote it."""
    older = {k: v for k, v in content.items() if k not in ("digest", "min_runtimes")} | {"schema": 1}
    older["artifacts"] = [{k: v for k, v in a.items() if k != "baselines"} for a in content["artifacts"]]
    return older


def valid(content: dict[str, Any]) -> bool:
    validator = jsonschema.validators.validator_for(manifest_schema())
    return validator(manifest_schema()).is_valid(content)


def test_the_published_schema_is_the_codes_own() -> None:
    command = [sys.executable, "-m", "edgeseg.manifest_schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(PUBLISHED.read_text()) == json.loads(printed), (
        "regenerate it: python -m edgeseg.manifest_schema > docs/manifest.schema.json"
    )


def test_the_schema_is_a_sound_one_and_says_what_the_fields_mean() -> None:
    published = json.loads(PUBLISHED.read_text())
    validator = jsonschema.validators.validator_for(published)
    validator.check_schema(published)
    assert validator is jsonschema.Draft202012Validator
    kinds = published["$defs"]
    assert all(kind["description"] for kind in kinds.values())
    assert "SHA-256" in kinds["Manifest"]["properties"]["digest"]["description"]
    assert kinds["Baseline"]["properties"]["agreement_min"]["description"].startswith("the tolerances a self-test")


def test_a_real_manifest_is_valid_in_both_schemas(content: dict[str, Any]) -> None:
    older = first_schema(content)
    assert (content["schema"], older["schema"]) == (SCHEMA, 1)
    assert valid(content)
    assert valid(older)


@pytest.mark.parametrize("field", ["name", "classes", "preprocess", "schema"])
def test_a_manifest_without_what_it_must_have_is_not_valid(content: dict[str, Any], field: str) -> None:
    assert not valid({k: v for k, v in content.items() if k != field})


def test_the_schema_refuses_what_the_code_refuses(content: dict[str, Any]) -> None:
    record = content["artifacts"][0]["files"][0]
    for wrong in ({"sha256": "x"}, {"size_bytes": -1}, {"size_bytes": "1"}, {"path": 3}):
        changed = json.loads(json.dumps(content))
        changed["artifacts"][0]["files"][0] = record | wrong
        assert not valid(changed)
    assert not valid(content | {"schema": SCHEMA + 1})
    with pytest.raises(BundleTooNew, match=f"has schema {SCHEMA + 1}, this edgeseg reads up to {SCHEMA}"):
        decode_manifest(seal(content | {"schema": SCHEMA + 1}))


def test_a_bundle_of_the_first_schema_is_still_read(bundle_copy: Path, content: dict[str, Any]) -> None:
    newer = open_bundle(bundle_copy)
    (bundle_copy / MANIFEST).write_text(json.dumps(first_schema(content)))
    older = open_bundle(bundle_copy)
    assert [a.files for a in older.artifacts] == [a.files for a in newer.artifacts]
    assert (older.manifest.digest, older.manifest.min_runtimes) == ("", {})


def test_order_and_white_space_do_not_matter_and_everything_else_does(content: dict[str, Any]) -> None:
    turned = json.dumps(dict(reversed(content.items()))).encode()
    assert decode_manifest(turned) == decode_manifest(seal(content))
    assert digest(json.loads(turned)) == content["digest"]
    changed = {**content, "name": content["name"] + "x"}
    with pytest.raises(BundleError, match="was changed, it does not have its own digest"):
        decode_manifest(json.dumps(changed).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"schema": 2', b'"schema": 2, "schema": 2'),
        (b'"schema": 2', b'"schema": 2.0'),
        (b'"schema": 2', b'"schema": true'),
        (b'"schema": 2', b'"schema": 2, "x": NaN'),
        (b'"schema": 2', b'"schema": 2, "x": 1.50'),
        (b'"schema": 2', b'"schema": 2, "x": 1e999'),
        (b'"schema": 2', b'"schema": 2, "x": 99999999999999999999'),
        (b'"schema": 2', b'"schema": 2, "x": ' + b"[" * 99_999 + b"]" * 99_999),
    ],
)
def test_what_a_strict_writer_does_not_write_is_not_read(content: dict[str, Any], old: bytes, new: bytes) -> None:
    data = seal(content)
    assert data.count(old) == 1
    with pytest.raises(BundleError, match="is not a valid manifest"):
        parse_manifest(data.replace(old, new))


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    # The example of the standard's section 3.2.2 and 3.2.3, as it prints the result.
    example = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(example).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
