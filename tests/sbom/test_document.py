"""The bill of materials: valid by the standard's own schema, the same for the same bundle, complete."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator

import edgeseg
from edgeseg.bundle import open_bundle
from edgeseg.evidence import Provenance
from edgeseg.manifest import MANIFEST, seal
from edgeseg.sbom import bill_of_materials
from edgeseg.types import Bundle

ROOT = Path(__file__).parents[2]
PACKAGES = tomllib.loads((Path(edgeseg.__file__).parent / "sbom" / "packages.toml").read_text())
SHA = {name: f"{number:064x}" for number, name in enumerate(("pool", "train", "weights", "other"), 1)}


def document(bundle: Bundle) -> dict[str, Any]:
    text = bill_of_materials(bundle).decode()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, str(error)[:2000]
    content: dict[str, Any] = json.loads(text)
    return content


def by_reference(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["bom-ref"]: c for c in [content["metadata"]["component"], *content["components"]]}


def needs(content: dict[str, Any], reference: str) -> set[str]:
    return set(next(d.get("dependsOn", []) for d in content["dependencies"] if d["ref"] == reference))


def values(component: dict[str, Any]) -> dict[str, str]:
    return {p["name"].removeprefix("edgeseg:"): p["value"] for p in component.get("properties", [])}


def changed(bundle: Bundle, **provenance: Any) -> Bundle:
    manifest = bundle.manifest
    return replace(bundle, manifest=replace(manifest, provenance=replace(manifest.provenance, **provenance)))


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle)


def test_a_converted_bundle(opened: Bundle) -> None:
    content = document(opened)
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    root = content["metadata"]["component"]
    assert (root["name"], root["type"]) == ("tiny", "machine-learning-model")
    assert values(root)["manifest-digest"] == opened.manifest.digest
    components = by_reference(content)
    listed = {h["content"] for c in components.values() for f in c.get("components", []) for h in f["hashes"]}
    every = json.loads((opened.path / MANIFEST).read_text())
    files = re.findall(r'"sha256": "([0-9a-f]{64})"', json.dumps([every["artifacts"], every["golden"]]))
    assert listed == set(files)
    for artifact in opened.artifacts:
        component = components[f"artifact:{artifact.name}"]
        assert component["hashes"] == [{"alg": "SHA-256", "content": artifact.sha256}]
        metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        assert artifact.parity
        agreement = next(m for m in metrics if m["type"] == "agreement")
        assert float(agreement["value"]) == artifact.parity.agreement
        assert f"{artifact.parity.frames} frames on {artifact.parity.runtime}" in agreement["slice"]
    source = components["source"]
    assert source["hashes"][0]["content"] == opened.manifest.provenance.source["sha256"]
    for role in ("calibration", "evaluation"):
        sha256 = getattr(opened.manifest.provenance, role)["sha256"]
        data = components[f"data:{sha256[:16]}"]
        assert data["hashes"][0]["content"] == sha256
        assert role in values(data)["roles"]
        assert data["data"][0]["type"] == "dataset"


def test_packages_have_versions_purls_licences_and_scopes(opened: Bundle) -> None:
    components = by_reference(document(opened))
    tools = opened.manifest.provenance.tools
    for name, version in tools.items():
        component = components[f"pkg:pypi/{name}@{version}"]
        assert component["version"] == version
        assert component["purl"].startswith(f"pkg:pypi/{name}@")
        assert component["licenses"]
    engine = components[f"pkg:pypi/onnxruntime@{tools['onnxruntime']}"]
    assert engine["scope"] == "optional"
    assert values(engine)["roles"] == "engine, conversion"
    assert values(engine)["lowest-version"] == opened.manifest.min_runtimes["onnxruntime"]
    assert components[f"pkg:pypi/torch@{tools['torch']}"]["scope"] == "excluded"
    assert components["pkg:pypi/msgspec"]["scope"] == "required"
    assert values(components["pkg:pypi/tflite-runtime"])["instead-of"] == "ai-edge-litert"


def test_what_was_made_of_what(opened: Bundle) -> None:
    content = document(opened)
    made = opened.manifest.provenance
    calibration = f"data:{made.calibration['sha256'][:16]}"
    assert needs(content, "artifact:onnx-fp32") == {"source"}
    assert needs(content, "artifact:onnx-int8") == {"artifact:onnx-fp32", calibration}
    assert needs(content, "artifact:openvino-int8") == {"artifact:openvino-fp32", calibration}
    assert {f"artifact:{a.name}" for a in opened.artifacts} <= needs(content, "bundle")
    assert f"pkg:pypi/torch@{made.tools['torch']}" not in needs(content, "bundle")
    (workflow,) = content["formulation"][0]["workflows"]
    tasks = {task["name"]: task for task in workflow["tasks"]}
    step = tasks["OnnxInt8FromOnnx"]
    assert step["taskTypes"] == ["build"]
    assert {"resource": {"ref": "artifact:onnx-fp32"}} in step["inputs"]
    assert step["outputs"] == [{"resource": {"ref": "artifact:onnx-int8"}, "type": "artifact"}]
    measured = tasks["gates of onnx-int8 on onnxruntime"]
    assert measured["taskTypes"] == ["test"]
    assert {"resource": {"ref": f"data:{made.evaluation['sha256'][:16]}"}} in measured["inputs"]
    known = set(by_reference(content)) | {f["bom-ref"] for c in content["components"] for f in c.get("components", [])}
    for task in workflow["tasks"]:
        for port in [*task["inputs"], *task.get("outputs", [])]:
            assert port.get("resource", {"ref": "source"})["ref"] in known


def test_a_compressed_bundle_names_network_pool_and_training(opened: Bundle) -> None:
    made = opened.manifest.provenance
    bundle = changed(
        opened,
        compression={
            "pool": {"sha256": [SHA["pool"]], "frames": 64},
            "prune": {"ratio": 0.5},
            "tools": {"torch-pruning": "1.6.1"},
        },
        training={
            "data": {"folder": "heads", "frames": {"train": 10}, "sha256": {"train": SHA["train"]}},
            "encoder_weights": {"file": "encoder.npz", "sha256": SHA["weights"]},
        },
    )
    content = document(bundle)
    components = by_reference(content)
    assert needs(content, "network") == {"source", f"data:{SHA['pool'][:16]}"}
    assert needs(content, "source") == {f"data:{SHA['train'][:16]}", "encoder-weights"}
    assert needs(content, "artifact:onnx-fp32") == {"network"}
    assert values(components["network"])["stages"] == "prune"
    assert components["pkg:pypi/torch-pruning@1.6.1"]["scope"] == "excluded"
    tasks = content["formulation"][0]["workflows"][0]["tasks"]
    assert tasks[0]["name"] == "compression of the source"
    assert made.network.get("sha256") == values(components["network"]).get("weights-sha256")


def test_equal_bundles_give_equal_bytes_and_others_do_not(opened: Bundle, bundle_copy: Path) -> None:
    first = bill_of_materials(opened)
    assert bill_of_materials(opened) == first
    assert bill_of_materials(open_bundle(bundle_copy)) == first
    assert str(opened.path.parent).encode() not in first
    content = json.loads((bundle_copy / MANIFEST).read_text())
    content["classes"][1] = "skull"
    (bundle_copy / MANIFEST).write_bytes(seal(content))
    other = json.loads(bill_of_materials(open_bundle(bundle_copy)))
    assert other["serialNumber"] != json.loads(first)["serialNumber"]
    assert json.loads(first)["metadata"]["timestamp"] == opened.manifest.provenance.created


def test_a_bundle_that_knows_nothing_of_its_past(opened: Bundle) -> None:
    artifacts = tuple(replace(a, parity=None, baselines=()) for a in opened.artifacts[:1])
    bare = replace(
        opened.manifest, artifacts=artifacts, golden=(), provenance=Provenance(), min_runtimes={}, digest="", schema=1
    )
    content = document(replace(opened, manifest=bare))
    assert "timestamp" not in content["metadata"]
    assert "formulation" not in content
    assert "the source has no hash" in values(content["metadata"]["component"])["lineage"]
    assert needs(content, f"artifact:{artifacts[0].name}") == {"source"}
    assert "quantitativeAnalysis" not in by_reference(content)[f"artifact:{artifacts[0].name}"]["modelCard"]


def test_a_bundle_without_an_engine_does_not_list_it(opened: Bundle) -> None:
    only = tuple(a for a in opened.artifacts if a.format == "onnx")
    made = replace(opened.manifest.provenance, tools={"edgeseg": "0.1.0", "onnxruntime": "1.31.1"})
    content = document(replace(opened, manifest=replace(opened.manifest, artifacts=only, provenance=made)))
    assert not [name for name in by_reference(content) if "openvino" in name or "lite" in name]
    assert {v["id"].split("-")[1] for v in content["vulnerabilities"]} == {"ONNXRUNTIME"}


def test_known_anomalies_say_what_guards_against_them(opened: Bundle) -> None:
    content = document(opened)
    found = {v["id"]: v for v in content["vulnerabilities"]}
    bf16 = found["EDGESEG-OPENVINO-1"]
    version = opened.manifest.provenance.tools["openvino"]
    assert bf16["affects"][0]["ref"] == f"pkg:pypi/openvino@{version}"
    assert bf16["affects"][0]["versions"] == [{"status": "affected", "version": version}]
    assert bf16["analysis"]["state"] == "not_affected"
    assert bf16["analysis"]["justification"] == "protected_by_mitigating_control"
    assert "INFERENCE_PRECISION_HINT" in bf16["analysis"]["detail"]
    assert "EDGESEG-ONNX-1" not in found
    older = changed(opened, tools={**opened.manifest.provenance.tools, "onnx": "1.20.1"})
    listed = {v["id"]: v for v in document(older)["vulnerabilities"]}["EDGESEG-ONNX-1"]
    assert {"status": "affected", "version": "1.20.1"} in listed["affects"][0]["versions"]
    assert {"status": "affected", "range": "vers:pypi/<1.21"} in listed["affects"][0]["versions"]


def test_the_list_of_packages_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def admitted(names: list[str]) -> dict[str, str]:
        return {re.split(r"[<>=]", name)[0]: name[len(re.split(r"[<>=]", name)[0]) :] for name in names}

    device = {name: entry["requires"] for name, entry in PACKAGES["device"].items()}
    assert device == admitted(project["dependencies"])
    extras = project["optional-dependencies"]
    engines = {name: entry["requires"] for name, entry in PACKAGES["engine"].items() if "instead_of" not in entry}
    assert engines == admitted([*extras["onnx"], *extras["openvino"], *extras["tflite"]])
    others = admitted([n for n in [*extras["convert"], *extras["train"]] if not n.startswith("edgeseg")])
    assert set(others) == set(PACKAGES["conversion"]) - {"edgeseg"}


@pytest.mark.parametrize("name", sorted({name for part in PACKAGES.values() for name in part}))
def test_licences_are_those_the_packages_declare(name: str) -> None:
    listed = next(part[name]["licence"] for part in PACKAGES.values() if name in part)
    for word in re.split(r" (?:AND|OR|WITH) ", listed):
        assert is_supported_id(word) or word == "LLVM-exception"
    try:
        about = metadata(name)
    except PackageNotFoundError:
        assert name == "tflite-runtime"
        return
    if about.get("License-Expression"):
        assert about["License-Expression"] == listed
        return
    said = f"{about.get('License') or ''} {' '.join(about.get_all('Classifier') or [])}".lower()
    if "license" in said or "apache" in said or "mit" in said:
        assert listed.split("-")[0].lower() in said
