"""Fetch Nsight Systems from Debian's archive into a folder of its own, and mend its packaging."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from debian_packages import PrivateApt, fetch, system_suite, unpack
from installing import SetupError, need_space, run, say

RECIPE = 1
"""Raised when what is done to the packages changes, so that caches are built anew."""


@dataclass(frozen=True)
class Release:
    """One Nsight Systems in one Debian release."""

    version: str
    suite: str


RELEASES = {
    release.version: release
    for release in (Release("2022.4.2", "bookworm"), Release("2023.4.4", "trixie"))
}

TRIPLET = "x86_64-linux-gnu"
HOST = Path("usr/lib/nsight-systems/host-linux-x64")
TARGET = Path(f"usr/lib/{TRIPLET}/nsight-systems/target-linux-x64")
NSYS = Path("usr/bin/nsys")

# Of all that the packages depend on (a whole desktop), what recording and exporting need and a
# bare system may lack: the name that is looked for, the library behind it, its package.
LIBRARIES = (
    ("libssh.so", "libssh.so.4", "libssh-4"),
    ("libpfm.so.4", "libpfm.so.4", "libpfm4"),
    ("libelf.so.1", "libelf.so.1", "libelf1"),
)


def build(place: Path, release: Release) -> None:
    """Fill ``place`` with a working ``release``; the caller keeps it only if this returns."""
    need_space(place, 2, f"Nsight Systems {release.version}")
    say(f"fetching Nsight Systems {release.version} (about 190 MB) from Debian's {release.suite}")
    apt, packages = fetch(
        place, release.suite, "non-free", "nsight-systems", "nsight-systems-target"
    )
    unpack(packages, place)
    _mend(place)
    _provide_libraries(place, apt, release)
    shutil.rmtree(place / "apt")
    verify(place / NSYS, release.version)


def _mend(place: Path) -> None:
    """Put the importer where nsys looks for it: beside its own folder.

    Debian splits the two over two packages and folders. Without this link nsys records, but
    leaves a ``.qdstrm`` and no report.
    """
    link = place / TARGET.parent / HOST.name
    link.symlink_to(os.path.relpath(place / HOST, link.parent))


def _provide_libraries(place: Path, apt: PrivateApt, release: Release) -> None:
    """Make every library that nsys needs be found: the system's, or else one of our own."""
    own = place / "usr/lib" / TRIPLET
    for _, library, _ in LIBRARIES:
        for folder in (Path("/usr/lib") / TRIPLET, Path("/lib") / TRIPLET):
            if (folder / library).exists() and not (own / library).exists():
                (own / library).symlink_to(folder / library)
    # libssh.so in the importer's folder is a link to libssh.so.4 in this one (in 2023.4 by way of
    # a second link), which is why filling this one is enough.
    missing = _unresolved(place)
    wanted = [package for name, _, package in LIBRARIES if name in missing]
    if wanted:
        apt.update(system_suite() or release.suite, "main")
        unpack(apt.download_missing(*wanted), place)
        # A program of nsys looks in its own folder first, and nowhere else outside the system.
        for file in own.glob("*.so*"):
            for folder in (place / HOST, place / TARGET):
                link = folder / file.name
                if not link.exists() and not link.is_symlink():
                    link.symlink_to(os.path.relpath(file, folder))
    missing = _unresolved(place)
    if missing:
        raise SetupError(
            f"Nsight Systems {release.version} needs libraries that neither this system nor the "
            f"packages {wanted} have: {', '.join(sorted(missing))}. Install the packages that "
            "hold them with the system's package manager and run the same command again."
        )


def _unresolved(place: Path) -> set[str]:
    """Return the names that the loader does not find for what recording and exporting run."""
    programs = [place / TARGET / "nsys", place / TARGET / "nsys-launcher"]
    programs += [place / TARGET / "libToolsInjection64.so", place / HOST / "QdstrmImporter"]
    found: set[str] = set()
    for program in programs:
        output = run(["ldd", str(program)], f"Looking at the libraries of {program.name}")
        found.update(re.findall(r"^\s*(\S+) => not found", output, re.MULTILINE))
    return found


def verify(nsys: Path, version: str) -> None:
    """Record a trivial program and export the recording: what every later use depends on."""
    said = run([str(nsys), "--version"], f"Starting nsys {version}")
    if version not in said:
        raise SetupError(f"The package holds {said.strip()}, not Nsight Systems {version}.")
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        report = Path(folder) / "trial.nsys-rep"
        environment = {"TMPDIR": folder}
        record = [str(nsys), "profile", "-t", "nvtx", "-s", "none", "--cpuctxsw=none"]
        record += ["-o", str(report.with_suffix("")), sys.executable, "-c", "pass"]
        output = run(record, f"A trial recording with nsys {version}", env=environment)
        if not report.is_file():
            raise SetupError(f"nsys {version} ran but wrote no report. It said:\n{output[-2000:]}")
        export = [str(nsys), "export", "--type", "sqlite", str(report)]
        run(export, f"A trial export with nsys {version}", cwd=report.parent, env=environment)
        if not report.with_suffix(".sqlite").is_file():
            raise SetupError(f"nsys {version} exported nothing from its own recording.")


def on_path() -> tuple[Path, str] | None:
    """Return the system's own nsys and its version, if it has one."""
    found = shutil.which("nsys")
    if found is None:
        return None
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\d{4}\.\d+(?:\.\d+)*", done.stdout)
    return Path(found), match.group(0) if match else "unknown"
