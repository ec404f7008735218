from __future__ import annotations

import pytest

from profilemate.annotate.settings import Settings, Steps


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"NVTX_INJECTION64_PATH": "/opt/libToolsInjection64.so"}, True),
        ({"NSYS_PROFILING_SESSION_ID": "7"}, True),
        ({"VLLM_TORCH_PROFILER_DIR": "/tmp/t"}, True),
        ({"VLLM_PROFILING_DIR": "/tmp/p"}, True),
        ({"VLLM_PROFILING_VERBOSE": "1"}, True),
        ({"VLLM_PROFILING_LOG_INTERVAL": "50"}, True),
        ({"PROFILEMATE_DOOR": "sitecustomize"}, True),
        ({"PROFILEMATE_DOOR": "run"}, False),
        ({"PROFILEMATE_DIR": "/tmp/p"}, True),
        ({"PROFILEMATE_TORCH": "1"}, True),
        ({"PROFILEMATE_STEPS": "1:2"}, False),
        ({"PROFILEMATE": "off", "PROFILEMATE_TORCH": "1"}, False),
        ({"PROFILEMATE": "on"}, True),
        ({"PROFILEMATE": " ON "}, True),
        ({"PROFILEMATE": "off", "NSYS_PROFILING_SESSION_ID": "7"}, False),
        ({"PROFILEMATE": "off", "PROFILEMATE_DOOR": "sitecustomize"}, False),
        ({"PROFILEMATE": ""}, False),
    ],
)
def test_who_asks_for_annotation(env: dict[str, str], wanted: bool) -> None:
    settings = Settings.from_env(env)
    assert settings.wanted is wanted
    assert settings.reason


def test_the_old_names_are_aliases_and_ours_win() -> None:
    env = {
        "VLLM_PROFILING_DIR": "/old",
        "VLLM_PROFILING_VERBOSE": "1",
        "VLLM_PROFILING_LOG_INTERVAL": "50",
    }
    old = Settings.from_env(env)
    assert (old.directory, old.verbose, old.interval) == ("/old", True, 50)
    ours = {"PROFILEMATE_DIR": "/new", "PROFILEMATE_VERBOSE": "0", "PROFILEMATE_LOG_INTERVAL": "7"}
    new = Settings.from_env(env | ours)
    assert (new.directory, new.verbose, new.interval) == ("/new", False, 7)


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings.from_env({})
    assert (settings.mode, settings.directory, settings.interval) == (
        "auto",
        "/tmp/vllm_profiling",
        100,
    )
    assert settings.graphs
    assert settings.kv
    assert not settings.launches
    assert not settings.verbose


@pytest.mark.parametrize(
    "env",
    [
        {"PROFILEMATE": "maybe"},
        {"PROFILEMATE_KV": "perhaps"},
        {"PROFILEMATE_LOG_INTERVAL": "often"},
        {"VLLM_PROFILING_LOG_INTERVAL": "0"},
        {"PROFILEMATE_MAX_MB": "-1"},
        {"PROFILEMATE_GZIP": "very"},
        {"PROFILEMATE_STEPS": "5"},
        {"PROFILEMATE_STEPS": "0:5"},
        {"PROFILEMATE_STEPS": "5:0"},
        {"PROFILEMATE_STEPS": "5:-1"},
        {"PROFILEMATE_STEPS": "a:b"},
        {"PROFILEMATE_STEPS": "\u0665:3"},
        {"PROFILEMATE_STEPS": "1:2:3"},
    ],
)
def test_nonsense_is_complained_about_and_never_raises(env: dict[str, str]) -> None:
    settings = Settings.from_env(env)
    (complaint,) = settings.complaints
    (name,) = env
    assert complaint.startswith(name)
    defaults = Settings.from_env({})
    for value in ("mode", "kv", "interval", "max_mb", "gzip", "steps"):
        assert getattr(settings, value) == getattr(defaults, value)


def test_steps_are_a_first_and_a_number() -> None:
    assert Settings.from_env({"PROFILEMATE_STEPS": " 12:34 "}).steps == Steps(12, 34)


@pytest.mark.parametrize(
    ("env", "torch", "live"),
    [
        ({}, False, False),
        ({"NSYS_PROFILING_SESSION_ID": "7"}, False, False),
        ({"VLLM_TORCH_PROFILER_DIR": "/tmp/t"}, True, False),
        ({"PROFILEMATE_TORCH": "1"}, True, False),
        ({"PROFILEMATE_DOOR": "sitecustomize"}, False, True),
        ({"PROFILEMATE": "on"}, False, True),
        ({"VLLM_PROFILING_DIR": "/tmp/p"}, False, True),
        ({"VLLM_PROFILING_VERBOSE": "1"}, False, True),
        ({"VLLM_PROFILING_LOG_INTERVAL": "50"}, False, True),
        ({"PROFILEMATE_DIR": "/tmp/p"}, False, True),
        ({"PROFILEMATE": "on", "PROFILEMATE_TORCH": "1"}, True, True),
    ],
)
def test_which_recorders_of_ours_are_asked_for(
    env: dict[str, str], torch: bool, live: bool
) -> None:
    settings = Settings.from_env(env)
    assert (settings.torch, settings.live) == (torch, live)


def test_one_switch_each() -> None:
    settings = Settings.from_env({"PROFILEMATE_GRAPHS": "0", "PROFILEMATE_KV": "false"})
    assert not settings.graphs
    assert not settings.kv
    assert Settings.from_env({"PROFILEMATE_LAUNCHES": "1"}).launches
    assert Settings.from_env({"PROFILEMATE_GPU_TIMING": "1"}).gpu_timing
    assert Settings.from_env({"PROFILEMATE_GZIP": "1"}).gzip
    assert Settings.from_env({"PROFILEMATE_MAX_MB": "0"}).max_mb == 0


@pytest.mark.parametrize(
    ("env", "live", "torch"),
    [
        ({}, False, False),
        ({"NSYS_PROFILING_SESSION_ID": "7"}, False, False),
        ({"PROFILEMATE": "on"}, True, False),
        ({"PROFILEMATE_DOOR": "sitecustomize"}, True, False),
        ({"PROFILEMATE_DIR": "/tmp/p"}, True, False),
        ({"VLLM_PROFILING_DIR": "/tmp/p"}, True, False),
        ({"VLLM_PROFILING_VERBOSE": "1"}, True, False),
        ({"VLLM_PROFILING_LOG_INTERVAL": "50"}, True, False),
        ({"PROFILEMATE_VERBOSE": "1"}, False, False),
        ({"VLLM_TORCH_PROFILER_DIR": "/tmp/t"}, False, True),
        ({"VLLM_TORCH_PROFILER_DIR": "/tmp/t", "PROFILEMATE": "on"}, True, True),
        ({"PROFILEMATE": "off", "VLLM_PROFILING_DIR": "/tmp/p"}, False, False),
    ],
)
def test_who_asks_for_a_live_session(env: dict[str, str], live: bool, torch: bool) -> None:
    settings = Settings.from_env(env)
    assert (settings.live, settings.torch) == (live, torch)
