"""Fetch packages from Debian's archive into a folder of our own.

Nothing of the system is changed and no right is needed: apt works on sources, lists and a cache of
our own, and the packages are only unpacked. The mirror is the one the system's own apt sources
name; what is fetched from which release is said by the modules that use this one.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from installing import SetupError, run

SUITES = {
    *("bullseye", "bookworm", "trixie", "forky", "sid"),
    *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
}
"""Names by which a source is known to be Debian's own archive; Ubuntu's are others."""


TRIPLET = "x86_64-linux-gnu"


@dataclass(frozen=True)
class Mirror:
    """Where the system gets Debian packages, with the options that make it trust them."""

    uri: str
    options: tuple[tuple[str, str], ...]


# --- the system's sources -------------------------------------------------------------------------

KEPT_OPTIONS = ("Signed-By", "Trusted", "Check-Valid-Until", "Check-Date")


def unsupported(what: str) -> str:
    """Return why this machine cannot have ``what`` from Debian's packages; empty if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the Debian packages of {what} are used on Linux on x86_64 only"
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

    def forget_installed(self) -> None:
        """From now on, what is installed counts for nothing: everything gets fetched."""
        nothing = self._folder / "status"
        nothing.touch()
        with (self._folder / "apt.conf").open("a", encoding="utf-8") as settings:
            settings.write(f'Dir::State::status "{nothing}";\n')

    def _apt_get(self, *arguments: str, what: str) -> None:
        command = ["apt-get", "-q", "-c", str(self._folder / "apt.conf"), *arguments]
        run(command, what, cwd=self._folder / "archives", env={"LC_ALL": "C"})

    def _fetched(self) -> list[Path]:
        return sorted((self._folder / "archives").glob("*.deb"))


# --- what the modules that use this one do --------------------------------------------------------


def fetch(
    place: Path, suite: str, component: str, *packages: str, whole: bool = False
) -> tuple[PrivateApt, list[Path]]:
    """Fetch these packages, not what they depend on, from the first mirror that has them.

    With ``whole`` all that they depend on comes too, even what is installed here. The apt that
    fetched them, which works in ``place / "apt"``, is returned too: it can fetch more, and the
    caller removes its folder at the end.
    """
    problems: list[str] = []
    for mirror in mirrors():
        apt = PrivateApt(place / "apt", mirror)
        try:
            if whole:
                apt.forget_installed()
            apt.update(suite, component)
            return apt, apt.download_missing(*packages) if whole else apt.download(*packages)
        except SetupError as problem:
            problems.append(str(problem))
    raise SetupError("\n".join(problems))


def unpack(packages: list[Path], place: Path) -> None:
    """Lay the files of these packages under ``place``; nothing of them is run."""
    for package in packages:
        run(["dpkg", "-x", str(package), str(place)], f"Unpacking {package.name}")
        package.unlink()


def system_suite() -> str:
    """Return this system's Debian release, whose libraries fit the system's C library."""
    try:
        name = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""
    return name if name in SUITES else ""
