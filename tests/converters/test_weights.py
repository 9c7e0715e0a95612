"""Files of weights from anywhere: read, or refused with the reason, and never executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeseg.converters.weights import read_tensors
from edgeseg.errors import ConversionError


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def write(path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(TENSORS, path)
    elif path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in TENSORS.items()})
    else:
        torch.save(TENSORS, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt"])
def test_every_kind_gives_the_same_tensors(suffix: str, tmp_path: Path) -> None:
    found = read_tensors(write(tmp_path / f"w{suffix}"))
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[k], TENSORS[k]) for k in TENSORS)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_one_level_deep_is_found(key: str, tmp_path: Path) -> None:
    torch.save({key: TENSORS, "epoch": 7}, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth").keys() == TENSORS.keys()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("spoil", ["empty", "half", "noise"])
def test_a_damaged_file_is_one_typed_error(suffix: str, spoil: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"w{suffix}")
    data = path.read_bytes()
    noise = np.random.default_rng(0).bytes(300)
    path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": noise}[spoil])
    with pytest.raises(ConversionError, match=f"w{suffix}"):
        read_tensors(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_executed(legacy: bool, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    if legacy:
        path.write_bytes(pickle.dumps({"a": Payload(marker)}))
    else:
        torch.save({"a": Payload(marker)}, path)
    with pytest.raises(ConversionError, match=r"evil.pth"):
        read_tensors(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if not legacy else pickle.loads(path.read_bytes())
    assert marker.exists()  # the payload works: what kept it still was the refusal


def test_an_npz_with_objects_is_refused_and_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    np.savez(tmp_path / "evil.npz", a=np.array([Payload(marker)], dtype=object))
    with pytest.raises(ConversionError, match=r"evil.npz is not a valid .npz"):
        read_tensors(tmp_path / "evil.npz")
    assert not marker.exists()


def test_a_whole_module_or_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ConversionError, match=r"holds more than tensors .* save its state_dict"):
        read_tensors(tmp_path / "module.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ConversionError, match="not a state dict"):
        read_tensors(tmp_path / "list.pth")


def test_a_missing_file_and_an_unknown_kind_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="does not exist"):
        read_tensors(tmp_path / "none.pth")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(ConversionError, match=r"unknown suffix '.h5', expected .safetensors"):
        read_tensors(tmp_path / "w.h5")
