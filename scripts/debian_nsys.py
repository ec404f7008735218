"""Fetch Nsight Systems from Debian's archive into a folder of its own, and mend its packaging.

Nothing of the system is changed and no right is needed: apt works on sources, lists and a cache of
our own, and the packages are only unpacked. The mirror is the one the system's own apt sources
name; only the releases come from the table here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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

SUITES = {
    *("bullseye", "bookworm", "trixie", "forky", "sid"),
    *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
}
"""Names by which a source is known to be Debian's own archive; Ubuntu's are others."""

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


@dataclass(frozen=True)
class Mirror:
    """Where the system gets Debian packages, with the options that make it trust them."""

    uri: str
    options: tuple[tuple[str, str], ...]


# --- the system's sources -------------------------------------------------------------------------

KEPT_OPTIONS = ("Signed-By", "Trusted", "Check-Valid-Until", "Check-Date")


def unsupported() -> str:
    """Return why this machine cannot have these packages; empty if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the Debian packages of Nsight Systems are for Linux on x86_64"
    missing = [tool for tool in ("apt-get", "dpkg", "ldd") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found: this is not a Debian or Ubuntu system"
    if not mirrors():
        return (
            "this system's apt sources name no Debian archive; PROFILEMATE_DEBIAN_MIRROR can name "
            "one (as a URI, with the debian-archive-keyring package installed)"
        )
    return ""


def mirrors(etc: Path = Path("/etc/apt")) -> list[Mirror]:
    """Return the Debian archives that apt is set up for, the likeliest first."""
    own = os.environ.get("PROFILEMATE_DEBIAN_MIRROR")
    if own:
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        return [Mirror(own, (("Signed-By", str(keyring)),) if keyring.exists() else ())]
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    found: dict[Mirror, None] = {}
    for file in files:
        if file.suffix not in (".list", ".sources") or not os.access(file, os.R_OK):
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        # The main file may be in either format, whatever its name.
        deb822 = re.search(r"^Types:", text, re.MULTILINE | re.IGNORECASE)
        found.update(dict.fromkeys(_from_deb822(text) if deb822 else _from_one_line(text)))
    # Other archives use Debian's release names too; Debian's own is nearly always called "debian".
    return sorted(found, key=lambda mirror: not mirror.uri.rstrip("/").endswith("/debian"))


def _from_one_line(text: str) -> Iterator[Mirror]:
    entry = re.compile(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#\n]+)", re.MULTILINE)
    for options, uri, suite, components in entry.findall(text):
        given = dict(word.split("=", 1) for word in options.split() if "=" in word)
        if _is_debian([suite], components.split()):
            yield _mirror(uri, {name.lower(): value for name, value in given.items()})


def _from_deb822(text: str) -> Iterator[Mirror]:
    uncommented = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n[ \t]*\n", uncommented):
        # A field goes on in the lines after it that begin with a blank: an embedded key does.
        pairs = re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        fields = {name.lower(): value.rstrip("\n") for name, value in pairs}
        if fields.get("enabled", "yes").strip().lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        if _is_debian(fields.get("suites", "").split(), fields.get("components", "").split()):
            for uri in fields.get("uris", "").split():
                yield _mirror(uri, fields)


def _is_debian(suites: list[str], components: list[str]) -> bool:
    """Tell whether these are the archive's own suites; security updates lie elsewhere."""
    return "main" in components and any(
        suite.split("-")[0] in SUITES
        for suite in suites
        if not suite.endswith(("-security", "/updates"))
    )


def _mirror(uri: str, fields: dict[str, str]) -> Mirror:
    kept = [(name, fields[name.lower()]) for name in KEPT_OPTIONS if name.lower() in fields]
    return Mirror(uri, tuple(kept))


# --- apt, without the system's state --------------------------------------------------------------


class PrivateApt:
    """apt-get on sources, lists and a cache under ``folder``, reading the system's settings.

    The system's proxies and certificates hold; its hooks do not (they would touch the system).
    """

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self._folder = folder
        self._mirror = mirror
        for part in ("lists/partial", "archives/partial", "log"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        settings = {
            "Dir::State": folder,
            "Dir::State::Lists": folder / "lists",
            # What is installed is the system's to say: only what it lacks gets fetched.
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives",
            "Dir::Log": folder / "log",
            "Dir::Etc::sourcelist": folder / "debian.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            # As root apt would become another user, who may not write here.
            "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            # The lists are ours alone, under the lock that the caller holds.
            "Debug::NoLocking": "true",
        }
        lines = [
            "#clear APT::Update;",
            "#clear DPkg;",
            "#clear Acquire::IndexTargets::deb::DEP-11;",
        ]
        lines += [f'{name} "{value}";' for name, value in settings.items()]
        (folder / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def update(self, suite: str, component: str) -> None:
        """Read what one component of one release holds, and forget any other."""
        fields = [
            ("Types", "deb"),
            ("URIs", self._mirror.uri),
            ("Suites", suite),
            ("Components", component),
            ("Architectures", "amd64"),
            *self._mirror.options,
        ]
        source = "".join(f"{name}: {value}\n" for name, value in fields)
        (self._folder / "debian.sources").write_text(source, encoding="utf-8")
        self._apt_get("update", what=f"Reading Debian's list of {suite}/{component}")

    def download(self, *packages: str) -> list[Path]:
        """Fetch these packages, whatever they depend on."""
        self._apt_get("download", *packages, what=f"Downloading {' and '.join(packages)}")
        return self._fetched()

    def download_missing(self, *packages: str) -> list[Path]:
        """Fetch those of the packages, and of what they depend on, that the system lacks."""
        options = ("-y", "--no-install-recommends", "--download-only", "install")
        self._apt_get(*options, *packages, what=f"Downloading {' and '.join(packages)}")
        return self._fetched()

    def _apt_get(self, *arguments: str, what: str) -> None:
        command = ["apt-get", "-q", "-c", str(self._folder / "apt.conf"), *arguments]
        run(command, what, cwd=self._folder / "archives", env={"LC_ALL": "C"})

    def _fetched(self) -> list[Path]:
        return sorted((self._folder / "archives").glob("*.deb"))


# --- unpacking, mending, trying -------------------------------------------------------------------


def build(place: Path, release: Release) -> None:
    """Fill ``place`` with a working ``release``; the caller keeps it only if this returns."""
    need_space(place, 2, f"Nsight Systems {release.version}")
    say(f"fetching Nsight Systems {release.version} (about 190 MB) from Debian's {release.suite}")
    problems: list[str] = []
    for mirror in mirrors():
        apt = PrivateApt(place / "apt", mirror)
        try:
            apt.update(release.suite, "non-free")
            packages = apt.download("nsight-systems", "nsight-systems-target")
            break
        except SetupError as problem:
            problems.append(str(problem))
    else:
        raise SetupError("\n".join(problems))
    _unpack(packages, place)
    _mend(place)
    _provide_libraries(place, apt, release)
    shutil.rmtree(place / "apt")
    verify(place / NSYS, release.version)


def _unpack(packages: list[Path], place: Path) -> None:
    for package in packages:
        run(["dpkg", "-x", str(package), str(place)], f"Unpacking {package.name}")
        package.unlink()


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
        apt.update(_system_suite() or release.suite, "main")
        _unpack(apt.download_missing(*wanted), place)
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


def _system_suite() -> str:
    """Return this system's Debian release, whose libraries fit the system's C library."""
    try:
        name = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""
    return name if name in SUITES else ""


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
