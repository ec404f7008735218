"""Build what a package registry accepts: the sources, and wheels with the compiled scanner.

    scripts/wheels [FOLDER]        # dist, if none is named

One wheel for Linux on each of x86_64 and aarch64, for every Python and every glibc since 2.17
(2012): the scanner is a plain library behind ctypes. Zig compiles it, from its package in the
registry: it knows the symbols of old versions of glibc, so neither a container nor an emulator is
needed. What was built is looked into before it is called good. `docs/publishing.md` says the rest.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from installing import PIP, SetupError, cache_root, digest, install_once, make_venv, run, say

CLONE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE / "scripts"))

import build_scanner  # noqa: E402

GLIBC = (2, 17)
# Machines, and how an ELF file names them.
MACHINES = {"x86_64": 62, "aarch64": 183}

TOOLS = ("ziglang==0.17.1", "twine==6.2.0")

# Every Linux with a glibc has these, whatever its version.
EVERYWHERE = {"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def platform_of(machine: str) -> str:
    """The platform in a wheel's name."""
    return f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"


def ensure_tools() -> Path:
    """Return the Python of an environment with the compiler and what checks packages."""
    fingerprint = digest(*TOOLS, sys.version)
    target = cache_root() / f"wheels-{fingerprint}"

    def build(place: Path) -> None:
        say(f"installing {' and '.join(TOOLS)}")
        make_venv(place)
        command = [str(place / "bin" / "python"), *PIP, "install", *TOOLS]
        run(command, f"Installing what builds wheels into {place}")

    install_once(target, fingerprint, build, relocatable=False)
    return target / "bin" / "python"


def compiler(python: Path, machine: str) -> str:
    """The command of a C compiler for this machine and the old glibc."""
    target = f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    return f"{python} -m ziglang cc -target {target} -s"


def wheel(folder: Path, machine: str, cc: str) -> Path:
    """Build the wheel for a machine.

    Raises:
        SetupError: It could not be built, or is not fit for a registry.
    """
    platform = platform_of(machine)
    zig = {f"ZIG_{kind}_CACHE_DIR": str(cache_root() / "zig") for kind in ("GLOBAL", "LOCAL")}
    # hatchling's hook takes its compiler and its platform from the environment, as others do.
    env = {**zig, "CC": cc, "_PYTHON_HOST_PLATFORM": platform}
    _hatchling("wheel", folder, env)
    made = sorted(folder.glob(f"*-py3-none-{platform}.whl"))
    if not made:
        raise SetupError(f"No wheel for {platform}: the scanner does not compile with\n    {cc}")
    with zipfile.ZipFile(made[0]) as archive:
        why = unfit(archive.read(str(build_scanner.LIBRARY)), machine)
    if why:
        raise SetupError(f"{made[0].name} is not for every {platform}: {why}")
    return made[0]


def unfit(library: bytes, machine: str) -> str:
    """Why a library does not run on every Linux that its wheel is for; nothing if it does."""
    if library[:6] != b"\x7fELF\x02\x01":
        return "its library is no ELF file of 64 bits"
    made_for = int.from_bytes(library[18:20], "little")
    if made_for != MACHINES[machine]:
        return f"its library is for machine {made_for} and not {MACHINES[machine]}"
    # All of its strings are looked at, not only the lists of what it needs: too strict at worst.
    strange = set(re.findall(rb"\0((?:lib|ld-)[\w+-]+\.so[.\d]*)(?=\0)", library))
    strange -= {name.encode() for name in (*EVERYWHERE, build_scanner.LIBRARY.name)}
    if strange:
        return f"its library needs {b', '.join(sorted(strange)).decode()}"
    versions = {
        tuple(int(part) for part in found.split(b"."))
        for found in re.findall(rb"\0GLIBC_([\d.]+)(?=\0)", library)
    }
    if versions and max(versions) > GLIBC:
        return f"its library needs glibc {'.'.join(map(str, max(versions)))}"
    return ""


def sources(folder: Path) -> None:
    """Build the archive of the sources, for all other machines."""
    _hatchling("sdist", folder, {})


def _hatchling(kind: str, folder: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    run(command, f"Building the {kind}", cwd=CLONE, env=env)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; see the top of this file."""
    parser = argparse.ArgumentParser(description="Build what a package registry accepts.")
    parser.add_argument("folder", nargs="?", type=Path, default=CLONE / "dist")
    folder: Path = parser.parse_args(arguments).folder.absolute()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise SetupError(
                f"{folder} is not empty: what lies there would be published too. Empty it, or "
                "name another folder."
            )
        python = ensure_tools()
        with tempfile.TemporaryDirectory() as made:
            sources(Path(made))
            for machine in MACHINES:
                wheel(Path(made), machine, compiler(python, machine))
            files = sorted(Path(made).iterdir())
            check = [str(python), "-m", "twine", "check", "--strict", *map(str, files)]
            run(check, "Checking what was built")
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.move(file, folder / file.name)
                print(folder / file.name)
    except SetupError as error:
        print(f"profilemate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
