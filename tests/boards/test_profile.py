from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.boards import profile_check
from edgeseg.boards.profile import GENERIC, decode_profile, match_profile, profile, profile_folders, profiles
from edgeseg.engine_options import OPTIONS, EngineChoice, check_options
from edgeseg.errors import BadInput, BoardError
from edgeseg.plugins import ENGINES, runtime

# Every board of the project's list of boards.
BOARDS = [
    *("generic-cpu", "imx8m-plus", "imx95", "intel-atom-x7000e"),
    *("intel-core-ultra-100", "intel-core-ultra-200h", "intel-core-ultra-200v", "intel-core-ultra-300"),
    *("intel-n100", "intel-ncs2", "jetson-agx-orin", "jetson-nano"),
    *("jetson-orin-nano", "jetson-orin-nx-16gb", "jetson-orin-nx-8gb", "jetson-thor-t4000"),
    *("jetson-thor-t5000", "jetson-xavier-nx", "raspberry-pi-5", "rk3588"),
]
HEAD = "name = 'mine'\ntitle = 'Mine'\n"


def test_every_profile_reads_and_claims_nothing_without_a_source() -> None:
    assert set(BOARDS) <= set(profiles())
    for found in profiles().values():
        assert found.engines or found.refused
        stated = [*found.figures.values(), *found.limits.values(), *found.power_modes]
        assert all(figure.source for figure in stated), "a source, or that it is from memory"
        assert not any(figure.verified and "memory of" in figure.source for figure in stated)
        assert not found.verified, "edgeseg ran on no such board yet"


def test_no_board_is_claimed_twice() -> None:
    claims = [c for p in profiles().values() for c in (*p.match.compatible, *p.match.cpu_model)]
    assert len(claims) == len(set(claims))


def test_devices_are_those_of_the_runtimes() -> None:
    assert set(profile_check.DEVICES) == set(OPTIONS) == set(ENGINES)
    for name, devices in profile_check.DEVICES.items():
        assert runtime(name).device_names == devices  # type: ignore[attr-defined]


def test_the_plan_of_a_board_is_what_its_engines_are_told() -> None:
    plan = profile("jetson-orin-nano").plan
    assert plan[0] == EngineChoice(
        "onnxruntime",
        ("tensorrt", "cuda", "cpu"),
        ("fp16", "int8", "fp32"),
        None,
        {"tensorrt_workspace_mb": 1024, "tensorrt_fp16": True, "tensorrt_engine_cache": True},
    )
    assert plan[1] == EngineChoice("litert", ("cpu",), ("int8", "fp32"), 6)


def test_every_plan_can_be_told_to_its_engines() -> None:
    for found in profiles().values():
        for choice in () if found.refused else found.plan:
            assert check_options(choice.runtime, choice.options) == choice.options


def test_a_board_that_is_refused_has_no_plan() -> None:
    with pytest.raises(BoardError, match=r"OpenVINO"):
        _ = profile("intel-ncs2").plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 1\ntitle = 'x'", "name: Expected `str`, got `int`"),
        ("name = 'x'", "missing required field `title`"),
        (HEAD + "colour = 'red'", "unknown key 'colour', expected one of architectures, engines"),
        (HEAD + "notse = []", "unknown key 'notse', did you mean 'notes'?"),
        (
            HEAD + "[[engines]]\nruntime = 'litert'\npresicions = ['int8']",
            "unknown key 'presicions' in engines[0], did you mean 'precisions'?",
        ),
        (
            HEAD + "[[engines]]\nruntime = 'litert'\n[[engines]]\nruntime = 'openvno'",
            "unknown runtime 'openvno' in engines[1], did you mean 'openvino'?",
        ),
        (
            HEAD + "[[engines]]\nruntime = 'litert'\ndevices = ['gpu']",
            "unknown device 'gpu' of litert in engines[0], did you mean 'cpu'?",
        ),
        (
            HEAD + "[[engines]]\nruntime = 'litert'\nprecisions = ['int4']",
            "unknown precision 'int4' in engines[0], did you mean 'int8'?",
        ),
        (HEAD + "[[engines]]\nruntime = 'litert'\nthreads = 0", "engines[0].threads is 0, expected 1 or more"),
        (HEAD + "[[engines]]\nruntime = 'litert'\nthreads = '2'", "engines[0].threads: Expected `int | null`"),
        (
            HEAD + "[[engines]]\nruntime = 'onnxruntime'\n[engines.options]\ntensorrt_workspace = 1",
            "unknown option 'tensorrt_workspace' of onnxruntime in engines[0], did you mean 'tensorrt_workspace_mb'?",
        ),
        (
            HEAD + "[[engines]]\nruntime = 'onnxruntime'\n[engines.options]\ntensorrt_fp16 = 1",
            "engines[0].options.tensorrt_fp16 is 1, expected true or false",
        ),
        (
            HEAD + "[[engines]]\nruntime = 'openvino'\n[engines.options]\nperformance_hint = 'latency'",
            "engines[0].options.performance_hint is 'latency', expected one of LATENCY, THROUGHPUT",
        ),
        (
            HEAD + "[figures.memory_bandwith]\nvalue = 3",
            "unknown figure 'memory_bandwith' in figures, did you mean 'memory_bandwidth'?",
        ),
        (
            HEAD + "[figures.memory_bandwidth]\nvalue = 3\nunit = 'MB/s'",
            "figures.memory_bandwidth has the unit 'MB/s', expected GB/s",
        ),
        (HEAD + "[figures.npu]\nvalue = 3\nunit = 'GB'", "figures.npu has the unit 'GB', expected no unit or TOPS"),
        (
            HEAD + "[figures.memory_bandwidth]\nvalue = 'much'\nunit = 'GB/s'",
            "figures.memory_bandwidth is 'much' GB/s, expected a number",
        ),
        (HEAD + "[figures.power]\nvalue = 0\nunit = 'W'", "figures.power is 0, expected more than 0: leave out"),
        (HEAD + "[figures.power]\nvalue = 1\nunti = 'W'", "unknown key 'unti' in figures.power, did you mean 'unit'?"),
        (
            HEAD + "[figures.int8_dense]\nvalue = 3\nunit = 'TOPS'\nverified = true",
            "figures.int8_dense is verified but has no source",
        ),
        (HEAD + "[[power_modes]]\nname = 'MAXN'\nverified = true", "power_modes[0] is verified but has no source"),
        (HEAD + "[match]\nmemory_gb = [8, 4]", "match.memory_gb is not in order"),
        (HEAD + "engines = 3", "engines: Expected `array`, got `int`"),
        ("not toml", "Expected '='"),
    ],
)
def test_a_malformed_profile_says_file_key_and_nearest_word(text: str, said: str) -> None:
    with pytest.raises(BoardError) as caught:
        decode_profile(text, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml is not a valid board profile: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("compatible", "cpu", "name"),
    [
        ((), "Intel(R) N100", "intel-n100"),
        ((), "Intel(R) Core(TM) i3-N305", "intel-n100"),
        ((), "Intel(R) Core(TM) i7-N1000", GENERIC),
        ((), "Intel(R) Core(TM) Ultra 9 285K", GENERIC),
        ((), "Intel(R) Core(TM) Ultra 5 325", "intel-core-ultra-300"),
        (("raspberrypi,5-model-b",), "", "raspberry-pi-5"),
        (("raspberrypi,4-model-b",), "Cortex-A72", GENERIC),
        (("acme,probe-2", "fsl,imx8mp"), "", "imx8m-plus"),
        (("nvidia,p3509-0000+p3767-0004", "nvidia,tegra234"), "", "jetson-orin-nano-4gb"),
        (("nvidia,p3768-0000+p3767-0001-super",), "", "jetson-orin-nx-8gb"),
        ((), "", GENERIC),
    ],
)
def test_matching(compatible: tuple[str, ...], cpu: str, name: str) -> None:
    assert match_profile(compatible, cpu).name == name


@pytest.mark.parametrize(("gib", "name"), [(3.4, "jetson-orin-nano-4gb"), (7.4, "jetson-orin-nano")])
def test_memory_tells_boards_of_one_name_apart(gib: float, name: str) -> None:
    found = match_profile((), "", model="NVIDIA Jetson Orin Nano Developer Kit", memory_bytes=int(gib * (1 << 30)))
    assert found.name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=f"expected one of {GENERIC}"):
        profile("abacus")


def user_profile(folder: Path, name: str = "acme-cart", text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text or f"name = '{name}'\ntitle = 'Of a user'\n[match]\ncompatible = ['acme,cart']\n")
    return folder


def test_users_add_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, named, config = tmp_path / "given", tmp_path / "named", tmp_path / "config"
    user_profile(given, "one")
    user_profile(named, "two")
    user_profile(config / "edgeseg" / "boards", "three")
    monkeypatch.setenv("EDGESEG_BOARDS", f"{named}:{tmp_path / 'not there'}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    folders = profile_folders(given)
    assert folders == (given, named, config / "edgeseg" / "boards")
    assert list(profiles(folders))[:3] == ["one", "two", "three"]
    assert match_profile(("acme,cart",), "", known=profiles(folders)).name == "one"
    assert set(profiles()) == set(profiles(folders)) - {"one", "two", "three"}


def test_the_default_folder_is_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_profile(tmp_path / ".config" / "edgeseg" / "boards")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("EDGESEG_BOARDS", raising=False)
    assert "acme-cart" in profiles(profile_folders())


def test_a_users_profile_replaces_ours(tmp_path: Path) -> None:
    user_profile(tmp_path, "rk3588", "name = 'rk3588'\ntitle = 'Better'\n[match]\ncompatible = ['rockchip,rk3588']\n")
    known = profiles((tmp_path,))
    assert known["rk3588"].title == "Better"
    assert match_profile(("rockchip,rk3588",), "", known=known).title == "Better"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 'other'\ntitle = 'x'\n", "holds the profile 'other', expected the name of its file"),
        ("name = 'mine'\ntitel = 'x'\n", "unknown key 'titel', did you mean 'title'?"),
    ],
)
def test_a_users_mistake_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    user_profile(tmp_path, "mine", text)
    with pytest.raises(BoardError) as caught:
        profiles((tmp_path,))
    assert str(tmp_path / "mine.toml") in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BoardError, match=r"mine\.toml cannot be read: not UTF-8"):
        profiles((tmp_path,))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        profile_folders(tmp_path / "none")
