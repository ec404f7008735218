"""What to say of a file that no reader wants: what it is, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profilemate.errors import InputError, NotThisFormatError
from profilemate.parse.readers.base import Reader
from profilemate.printable import shell_word

EXAMPLES = (
    "A recording is an nsys report (.nsys-rep), its export (.sqlite), a directory of .parquet "
    "files made by nsys export --type parquetdir, or a torch profiler trace (.json, .json.gz, "
    ".json.zst)."
)
_PEEK = 1 << 16
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Stranger:
    """A kind of file that we know by its first bytes and cannot read."""

    magic: bytes
    what: str
    hint: str = EXAMPLES
    command: str = ""


_UNPACK = "Unpack it and open what is in it."
_EXPORT = ("Export the report as sqlite instead:", "nsys export --type sqlite REPORT.nsys-rep")
_STRANGERS = (
    Stranger(b"\x89PNG\r\n\x1a\n", "a PNG image"),
    Stranger(b"\xff\xd8\xff", "a JPEG image"),
    Stranger(b"%PDF", "a PDF document"),
    Stranger(b"PK\x03\x04", "a zip archive", _UNPACK),
    Stranger(b"\x7fELF", "a program"),
    Stranger(b"\x89HDF\r\n\x1a\n", "an HDF5 file, perhaps an export of nsys", *_EXPORT),
    Stranger(b"ARROW1", "an Arrow file, perhaps an export of nsys", *_EXPORT),
    Stranger(b"\xff\xff\xff\xff", "perhaps an Arrow stream, an export of nsys", *_EXPORT),
    Stranger(b"PAR1", "a single parquet file", "Open the directory that it lies in."),
    Stranger(b"\x1f\x8b", "a gzip file of something else than a trace", _UNPACK),
    Stranger(b"\x28\xb5\x2f\xfd", "a zstd file of something else than a trace", _UNPACK),
)
_JSON = Stranger(b"", "JSON without the list traceEvents that such a trace has")


def no_such_path(path: Path) -> InputError:
    """The path does not exist: name what is nearly called so."""
    try:
        siblings = [p.name for p in path.parent.iterdir()]
    except OSError:
        return InputError("No such file or directory", path=path, hint="Check the path.")
    close = [name for name in siblings if Path(name).stem == path.name]
    close += difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.6)
    names = ", ".join(str(path.parent / name) for name in dict.fromkeys(close))
    return InputError(
        "No such file or directory",
        path=path,
        hint=f"Did you mean {names}?" if names else "Look what is there:",
        command=() if names else f"ls {shell_word(path.parent)}",
    )


def unreadable(path: Path, error: OSError) -> InputError:
    """The operating system refuses."""
    return InputError(
        "Cannot read this",
        path=path,
        why=error.strerror or str(error),
        hint="See who may:",
        command=f"ls -ld {shell_word(path)}",
    )


def empty_file(path: Path) -> InputError:
    """There is nothing in it."""
    return InputError(
        "The file is empty",
        path=path,
        why="The recording was interrupted, the copy broke off, or the disk was full.",
        hint="Copy it again from where it was recorded, or record again.",
    )


def not_a_file(path: Path) -> InputError:
    """A pipe, a socket or a device."""
    return InputError(
        "This is neither a file nor a directory",
        path=path,
        why="Recordings are read in more than one pass, so a pipe will not do.",
        hint="Save it as a file first.",
    )


def no_recording(path: Path, inside: Sequence[Path]) -> InputError:
    """A directory that is not a recording itself; `inside` are the recordings in it."""
    if inside:
        names, more = " ".join(map(shell_word, inside[:_SHOWN])), len(inside) > _SHOWN
        return InputError(
            "This directory is no recording itself",
            path=path,
            why=f"It holds {len(inside)}.",
            hint="Name those that belong to one run" + (", such as:" if more else ":"),
            command=f"profilemate parse {names}",
        )
    return InputError("There is no recording in this directory", path=path, why=EXAMPLES)


def _promised(path: Path, readers: Iterable[Reader]) -> str:
    for reader in readers:
        if path.name.endswith(reader.suffixes):
            article = "an" if reader.name.startswith("nsys") else "a"
            return f"Its name promises {article} {reader.name}, but "
    return ""


def _identify(path: Path) -> Stranger:
    with path.open("rb") as file:
        head = file.read(_PEEK)
    if path.suffix == ".qdstrm":
        return Stranger(
            b"",
            "an unfinished nsys recording that was never turned into a report",
            "Turn it into one with the QdstrmImporter that lies beside nsys:",
            f"QdstrmImporter -i {shell_word(path)}",
        )
    if head.lstrip()[:1] in (b"{", b"["):
        return _JSON
    known = (s for s in _STRANGERS if head.startswith(s.magic))
    return next(known, Stranger(b"", "nothing that profilemate knows"))


def what_it_is(path: Path) -> str:
    """What a file that no reader wants seems to be.

    Raises:
        OSError: It cannot be read.
    """
    return f"it is {_identify(path).what}"


def not_a_recording(path: Path, readers: Iterable[Reader]) -> NotThisFormatError:
    """No reader wants this file.

    Raises:
        OSError: It cannot be read.
    """
    stranger = _identify(path)
    promised = _promised(path, readers)
    return NotThisFormatError(
        "This is not a recording that profilemate can read",
        path=path,
        why=f"{promised or 'By its content '}it is {stranger.what}.",
        hint=stranger.hint,
        command=stranger.command,
    )
