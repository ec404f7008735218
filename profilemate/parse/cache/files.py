"""Which files are the cache's, and how many of them may be.

Using a file makes it the youngest; the oldest go first when there are too many bytes.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from profilemate.parse.readers.nsys.report import PARQUET as PARQUET_FOLDER
from profilemate.parse.readers.nsys.report import default_cache_dir

SUFFIX = ".columns"
PART = ".part"
_NAME = re.compile(r"[0-9a-f]{32}\.columns")
_PART_NAME = re.compile(r"[0-9a-f]{32}\.[^/]*\.part")
_EXPORT = re.compile(r".+-[0-9a-f]{16}\.sqlite")
_EXPORT_FOLDER = re.compile(rf".+-[0-9a-f]{{16}}{PARQUET_FOLDER}")
_EXPORT_PART = re.compile(r".+-[0-9a-f]{16}\.[0-9]+\.part\..+")
_ABANDONED_S = 3600

File = tuple[Path, int, int]
"""A file, its bytes, and when it was last used, ns."""


NO_HOME = (
    "nothing is cached: this user has no home folder, and neither PROFILEMATE_CACHE nor "
    "XDG_CACHE_HOME names another"
)
"""Said where `default_folder` is None."""


def default_folder() -> Path | None:
    """Where decoded traces are kept: beside the exports of reports; None for nowhere."""
    exported = default_cache_dir()
    return None if exported is None else exported.with_name("decoded")


def kept(folder: Path) -> list[File]:
    """The decoded traces in a folder, the one that was not used for longest first."""
    return _matching(folder, _NAME)


def exports(folder: Path) -> list[File]:
    """The exports of reports in a folder, likewise; one may be a folder of parquet files."""
    found = _matching(folder, _EXPORT)
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                if _EXPORT_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    size = sum(path.stat().st_size for path in _tables(Path(entry.path)))
                    found.append((Path(entry.path), size, entry.stat().st_mtime_ns))
    return sorted(found, key=lambda item: (item[2], item[0]))


def _tables(folder: Path) -> list[Path]:
    """The files that an export to parquet files is made of."""
    return [p for p in folder.glob("*.parquet") if p.is_file() and not p.is_symlink()]


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[File]:
    found = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    found.append((Path(entry.path), facts.st_size, facts.st_mtime_ns))
    return sorted(found, key=lambda item: (item[2], item[0]))


def remove(path: Path) -> int:
    """Remove a file, or an export, of the cache; return how many bytes that freed."""
    if path.is_dir() and not path.is_symlink():
        freed = sum(remove(table) for table in _tables(path))
        with suppress(OSError):  # whatever else somebody put there stays
            path.rmdir()
        return freed
    with suppress(OSError):
        size = path.stat().st_size
        path.unlink()
        return size
    return 0


def shrink(folder: Path, limit: int) -> None:
    """Remove the files that were not used for longest until no more than `limit` bytes are left."""
    files = kept(folder)
    total = sum(size for _, size, _ in files)
    for path, size, _ in files:
        if total <= limit:
            return
        remove(path)
        total -= size


def sweep(folder: Path, older_s: float = _ABANDONED_S) -> None:
    """Remove what processes left behind that were killed while they wrote, nsys too."""
    for pattern in (_PART_NAME, _EXPORT_PART):
        for part, _, touched in _matching(folder, pattern):
            if touched < time.time_ns() - older_s * 1e9:
                remove(part)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the cache.

    Attributes:
        what: What is in it.
        folder: Where it is.
        files: The files of ours in it.
        bounded: Whether old ones make room for new ones.
    """

    what: str
    folder: Path
    files: list[File]
    bounded: bool

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(size for _, size, _ in self.files)


def places(folder: Path | None = None) -> list[Place]:
    """What is kept, in the user's cache folder or in one that was named with `--cache`.

    None at all for a user who has no such folder: see `NO_HOME`.
    """
    decoded, exported = folder or default_folder(), folder or default_cache_dir()
    if decoded is None or exported is None:
        return []
    return [
        Place("decoded recordings", decoded, kept(decoded), True),
        Place("exports of reports", exported, exports(exported), False),
    ]
