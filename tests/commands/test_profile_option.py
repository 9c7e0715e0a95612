"""`--profile`: what a board's profile says is what runs; a mistake in one names file, key and nearest known word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgeseg.commands.profile_plan import unverified
from edgeseg.commands.rows import Row

Invoke = Callable[..., Result]
SHORT = ("--rounds", "2", "--repeats", "1")
CART = """
name = "acme-cart"
title = "ACME cart"

[[engines]]
runtime = "litert"
precisions = ["int8"]
threads = 2

[engines.options]
delegate = "none"

[[engines]]
runtime = "onnxruntime"
devices = ["tensorrt", "cuda", "cpu"]
precisions = ["int8", "fp32"]
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(text: str = CART) -> Path:
        folder = tmp_path / "profiles"
        folder.mkdir(exist_ok=True)
        (folder / "acme-cart.toml").write_text(text)
        monkeypatch.setenv("EDGESEG_BOARDS", str(folder))
        return folder / "acme-cart.toml"

    return write


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return found


def told(row: dict[str, Any]) -> tuple[str, str, str, int | None]:
    return row["runtime"], row["precision"], row["device"], row["threads"]


def test_bench_measures_what_the_profile_says(
    invoke: Invoke, bundle: Path, profiles: Callable[..., Path], tmp_path: Path
) -> None:
    profiles()
    result = invoke("bench", bundle, "--profile", "acme-cart", *SHORT, "--json", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    assert "as its profile says" in result.output
    measured = rows(tmp_path / "b.json")
    assert [told(row) for row in measured] == [
        ("litert", "int8", "cpu", 2),
        ("onnxruntime", "int8", "cpu", 1),
        ("onnxruntime", "fp32", "cpu", 1),
    ]
    assert set(measured[0]["executed"]["providers"]) == {"CPU"}, "its delegate is none"
    assert measured[0]["load_ms"] > 0


def test_threads_on_the_command_line_count_before_the_profiles(
    invoke: Invoke, bundle: Path, profiles: Callable[..., Path], tmp_path: Path
) -> None:
    profiles()
    words = ("--profile", "acme-cart", "--threads", "1", "--no-isolate", "--json", tmp_path / "v.json")
    result = invoke("verify", bundle, *words)
    assert result.exit_code == 0, result.output
    assert [told(row)[3] for row in rows(tmp_path / "v.json")] == [1, 1, 1]


def test_run_and_stream_take_the_first_that_loads(
    invoke: Invoke, bundle: Path, frames: Path, profiles: Callable[..., Path], tmp_path: Path
) -> None:
    profiles()
    result = invoke("run", bundle, frames, "--profile", "acme-cart", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "tflite-int8 on litert cpu, ran in int8" in result.output.replace("\n", " ")
    words = ("--profile", "acme-cart", "--lossless", "--no-self-test", "--json", tmp_path / "s.jsonl")
    result = invoke("stream", bundle, frames / "images", *words)
    assert result.exit_code == 0, result.output
    start = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    assert start["chain"][:2] == ["tflite-int8 on litert cpu", "onnx-int8 on onnxruntime cpu"]


def test_the_profile_of_this_board(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    words = ("--profile", "auto", "--runtime", "litert", "--no-isolate", "--json", tmp_path / "v.json")
    result = invoke("verify", bundle, *words)
    assert result.exit_code == 0, result.output
    assert {row["runtime"] for row in rows(tmp_path / "v.json")} == {"litert"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("delegate", "delegat"), "unknown option 'delegat' of litert in engines[0], did you mean 'delegate'?"),
        (('"none"', '"vx"'), "engines[0].options.delegate is 'vx', expected one of xnnpack, none"),
        (("threads = 2", "thread = 2"), "unknown key 'thread' in engines[0], did you mean 'threads'?"),
        (('"onnxruntime"', '"litert"'), "unknown device 'tensorrt' of litert in engines[1]"),
        (
            ('runtime = "onnxruntime"\ndevices = ["tensorrt", "cuda", "cpu"]', 'runtime = "litert"'),
            "engines[1] is a second litert, expected one with all its devices",
        ),
    ],
)
def test_a_mistake_in_a_profile(
    invoke: Invoke, bundle: Path, profiles: Callable[..., Path], wrong: tuple[str, str], said: str
) -> None:
    path = profiles(CART.replace(*wrong))
    result = invoke("bench", bundle, "--profile", "acme-cart", *SHORT)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {path} is not a valid board profile: {said}")


def test_a_profile_that_is_none(invoke: Invoke, bundle: Path) -> None:
    result = invoke("bench", bundle, "--profile", "jetson-orin-nan")
    assert result.exit_code == 2
    assert "unknown board 'jetson-orin-nan'" in result.stderr


def test_a_board_that_edgeseg_does_not_run_on(invoke: Invoke, bundle: Path) -> None:
    result = invoke("bench", bundle, "--profile", "intel-ncs2")
    assert result.exit_code == 1
    assert "OpenVINO" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_devices_that_were_never_verified_are_named_once() -> None:
    ran = [("onnxruntime", "cuda"), ("onnxruntime", "cuda"), ("openvino", "npu"), ("litert", "cpu"), ("torch", "cpu")]
    lines = unverified(Row("onnx", "fp32", name, device, 1) for name, device in ran)
    assert [line.split(":")[0] for line in lines] == ["onnxruntime cuda", "openvino npu"]
    assert all("not verified on hardware" in line for line in lines)
