"""torch.export archives: loaded, or refused before torch can run what is hidden in them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.converters.source import SourceOptions, load_source
from edgeseg.errors import BadInput, ConversionError, UnsupportedModel

Json = dict[str, Any]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.head = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(nn.functional.interpolate(self.down(x), scale_factor=2.0, mode="bilinear")))


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def archive(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 32, 64),)), path)
    return path


def rewrite(path: Path, out: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> Path:
    """Copy an archive, each member replaced by what `change` makes of it."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            for changed in change(name, old.read(name)):
                new.writestr(*changed)
    return out


def edit_json(path: Path, out: Path, member: str, edit: Callable[[Json], None]) -> Path:
    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        if name.endswith(member):
            content = json.loads(data)
            edit(content)
            data = json.dumps(content).encode()
        return [(name, data)]

    return rewrite(path, out, change)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_an_exported_program_computes_what_its_module_does(archive: Path, network: nn.Module) -> None:
    source = load_source(str(archive), SourceOptions(mean=(0.5,), std=(0.25,)))
    assert (source.preprocess.height, source.preprocess.width, source.preprocess.channels) == (32, 64, 1)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 1, 32, 64)).astype(np.float32)
    with torch.inference_mode():
        want = network((torch.from_numpy(pixels) / 255 - 0.5) / 0.25).numpy()
    np.testing.assert_allclose(source.run(pixels), want, atol=1e-5)


def test_a_free_batch_size_is_no_obstacle(network: nn.Module, tmp_path: Path) -> None:
    batch = ({0: torch.export.Dim("n", min=1, max=8)},)
    program = torch.export.export(network, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "batch.pt2")
    assert load_source(str(tmp_path / "batch.pt2")).preprocess.height == 32


def test_another_size_than_the_exported_one_is_refused(archive: Path) -> None:
    with pytest.raises(BadInput, match="was exported for 32x64, it cannot run at"):
        load_source(str(archive), SourceOptions(size=(64, 64)))


def test_two_inputs_are_no_segmenter(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    image = torch.zeros(1, 1, 8, 8)
    torch.export.save(torch.export.export(Two(), (image, image)), tmp_path / "two.pt2")
    with pytest.raises(UnsupportedModel, match="expected one image"):
        load_source(str(tmp_path / "two.pt2"))


@pytest.mark.parametrize("spoil", ["empty", "half", "noise", "zip of nothing"])
def test_a_damaged_archive_is_one_typed_error(archive: Path, spoil: str, tmp_path: Path) -> None:
    data = archive.read_bytes()
    path = tmp_path / "bad.pt2"
    noise = np.random.default_rng(0).bytes(500)
    nothing = b"PK\x05\x06" + bytes(18)
    path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": noise, "zip of nothing": nothing}[spoil])
    with pytest.raises(ConversionError, match=r"bad.pt2 is not a"):
        load_source(str(path))


def refused(path: Path, marker: Path, why: str) -> None:
    with pytest.raises(ConversionError, match=f"refused unexecuted: .*{why}"):
        load_source(str(path))
    assert not marker.exists()


def test_pickled_sample_inputs_are_not_executed(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        return [(name, pickled(Payload(marker)) if name.endswith("sample_inputs/model.pt") else data)]

    refused(rewrite(archive, tmp_path / "evil.pt2", change), marker, "model.pt holds more than tensors")


def test_a_second_member_of_the_same_name_in_other_case_is_not_executed(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        if not name.endswith("sample_inputs/model.pt"):
            return [(name, data)]
        return [(name.replace("model.pt", "MODEL.PT"), pickled(Payload(marker))), (name, data)]

    refused(rewrite(archive, tmp_path / "evil.pt2", change), marker, "")


def test_weights_that_ask_to_be_unpickled_are_refused(archive: Path, tmp_path: Path) -> None:
    def ask(content: Json) -> None:
        content["config"]["head.bias"]["use_pickle"] = True

    path = edit_json(archive, tmp_path / "evil.pt2", "weights_config.json", ask)
    refused(path, tmp_path / "executed", "asks to unpickle")


@pytest.mark.parametrize("name", ["custom_obj_0", "opaque_obj_0", "run.py", "lib.so"])
def test_objects_and_code_are_refused(archive: Path, name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    def change(member: str, data: bytes) -> list[tuple[str, bytes]]:
        extra = [(f"net/data/constants/{name}", pickled(Payload(marker)))] if member.endswith("byteorder") else []
        return [(member, data), *extra]

    refused(rewrite(archive, tmp_path / "evil.pt2", change), marker, "is code or a pickled object")


@pytest.mark.parametrize(
    "expression", ["__import__('os').mkdir('executed')", "Symbol('s0').__class__", "9**9**9**9", "lambda: 0"]
)
def test_a_size_expression_that_is_none_is_not_evaluated(
    archive: Path, expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def inject(content: Json) -> None:
        size = {"as_expr": {"expr_str": expression, "hint": {"as_int": 1}}}
        content["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = size

    path = edit_json(archive, tmp_path / "evil.pt2", model_json(archive), inject)
    refused(path, tmp_path / "executed", "size expression")


def model_json(archive: Path) -> str:
    return next(n for n in zipfile.ZipFile(archive).namelist() if "/models/" in n).rsplit("/", 1)[-1]


@pytest.mark.parametrize(
    "target", ["torch.os.mkdir", "torch.load", "torch.ops.aten.from_file.default", "_operator.methodcaller", "#x:y"]
)
def test_a_graph_that_calls_anything_but_tensor_operators_is_refused(
    archive: Path, target: str, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"

    def inject(content: Json) -> None:
        node = content["graph_module"]["graph"]["nodes"][0]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": {"as_string": str(marker)}, "kind": 1}]

    path = edit_json(archive, tmp_path / "evil.pt2", model_json(archive), inject)
    refused(path, marker, "which is no operator of a network")


@pytest.mark.parametrize(
    "node",
    [
        {"type": "collections.namedtuple", "context": '"os.system"', "children_spec": []},
        {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "os:environ"}]', "children_spec": []},
        {"type": "builtins.dict", "context": '[{"\\u005f_enum__": true}]', "children_spec": []},
        {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "collections.defaultdict"}]},
    ],
)
def test_an_input_structure_that_names_classes_is_refused(archive: Path, node: Json, tmp_path: Path) -> None:
    def inject(content: Json) -> None:
        signature = content["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, node])

    path = edit_json(archive, tmp_path / "evil.pt2", model_json(archive), inject)
    refused(path, tmp_path / "executed", "input or output that is not a tensor")
