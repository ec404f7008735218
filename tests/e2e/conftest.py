"""One recorded run of a real server per Nsight Systems version, shared by all its tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import engine
import pytest
from places import DOOR, ROOT
from served import Recorded, record, tool


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """Python of the environment with a real vLLM."""
    return tool("PROFILEMATE_TEST_VLLM_PYTHON")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path) -> Path:
    """A tiny random Llama."""
    return engine.make_tiny_model(tmp_path_factory.mktemp("model"), vllm_python)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with profilemate as pip installs it, entry point and all."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, ROOT], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session", params=["2022.4 by plugin", "2023.4 by sitecustomize"])
def recorded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    vllm_python: Path,
    model: Path,
) -> Recorded:
    """Each version of Nsight Systems, each of the two doors."""
    version, _, door = request.param.partition(" by ")
    nsys = tool(f"PROFILEMATE_TEST_NSYS_{version[:4]}")
    pythonpath = [request.getfixturevalue("installed")] if door == "plugin" else [DOOR]
    folder = tmp_path_factory.mktemp(f"run-{version}")
    return record(folder, vllm_python, model, nsys, pythonpath)
