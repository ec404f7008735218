"""Fetch Chromium from Debian's archive into a folder of its own, with every library it needs.

A browser needs a hundred libraries that a server lacks. All of them are fetched, whatever is
installed, save the C library: that has to be the system's, as its loader is. A wrapper starts the
browser with them and with a font of our own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from debian_packages import TRIPLET, fetch, system_suite, unpack
from installing import SetupError, need_space, run, say

RECIPE = 1
"""Raised when what is done to the packages changes, so that caches are built anew."""

WRAPPER = Path("chromium")
BINARY = Path("usr/lib/chromium/chromium")
FONTS = "fonts-dejavu-core"

# The C library belongs to the loader; what manages packages is not needed to run a program.
UNWANTED = ("libc6_", "libc-bin_", "dpkg_", "perl", "debconf_", "systemd", "init-system-helpers_")


def suite() -> str:
    """Return the release to take: the system's, or the oldest that serves."""
    return system_suite() or "bookworm"


def on_system() -> Path | None:
    """Return the system's own Chromium, if it has one."""
    path = Path("/usr/bin/chromium")
    return path if os.access(path, os.X_OK) else None


def build(place: Path) -> None:
    """Fill ``place`` with a working Chromium; the caller keeps it only if this returns."""
    need_space(place, 2, "Chromium")
    say(f"fetching Chromium and its libraries (about 200 MB) from Debian's {suite()}")
    _, packages = fetch(place, suite(), "main", "chromium", FONTS, whole=True)
    unpack([p for p in packages if not p.name.startswith(UNWANTED)], place)
    for folder in ("apt", *(f"usr/share/{name}" for name in ("doc", "icons", "locale", "man"))):
        shutil.rmtree(place / folder, ignore_errors=True)
    _wrap(place)
    verify(place / WRAPPER)


def _wrap(place: Path) -> None:
    """Write the wrapper; it finds everything from where it lies, so the folder may be moved."""
    folders = [f"usr/lib/{TRIPLET}", f"lib/{TRIPLET}", f"usr/lib/{TRIPLET}/pulseaudio", "usr/lib"]
    libraries = ":".join(f"$here/{folder}" for folder in folders)
    lines = (
        "#!/bin/sh",
        'here=$(cd "$(dirname "$0")" && pwd)',
        "state=${TMPDIR:-/tmp}/profilemate-fonts-$(id -u)",
        'mkdir -p "$state"',
        'cat >"$state/fonts.conf.$$" <<END',
        '<?xml version="1.0"?><fontconfig>',
        "<dir>$here/usr/share/fonts</dir><cachedir>$state</cachedir></fontconfig>",
        "END",
        'mv "$state/fonts.conf.$$" "$state/fonts.conf"',
        'export FONTCONFIG_FILE="$state/fonts.conf"',
        f'export LD_LIBRARY_PATH="{libraries}"',
        f'exec "$here/{BINARY}" "$@"',
    )
    (place / WRAPPER).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / WRAPPER).chmod(0o755)


def verify(chromium: Path) -> None:
    """Take a picture of a page with text: what every later use depends on."""
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        page, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        command = [str(chromium), "--headless", "--disable-gpu", f"--user-data-dir={folder}/user"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        sizes = []
        for text in ("", "Text. " * 200):
            page.write_text(f"<body>{text}</body>", encoding="utf-8")
            picture.unlink(missing_ok=True)
            shot = [f"--screenshot={picture}", page.as_uri()]
            said = run([*command, *shot], "A trial picture with Chromium", env={"HOME": folder})
            if not picture.is_file():
                raise SetupError(f"Chromium ran but took no picture. It said:\n{said[-2000:]}")
            sizes.append(picture.stat().st_size)
        if sizes[1] < 2 * sizes[0]:
            raise SetupError("Chromium takes pictures, but without text: it found no font.")
