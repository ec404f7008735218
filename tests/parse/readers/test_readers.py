"""Which reader a path gets, and what is said of a path that gets none."""

from __future__ import annotations

import gzip
import io
import os
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from build import Export, Row

from profilemate.errors import InputError, NotThisFormatError, ProfilemateError
from profilemate.parse.readers import READERS, find_recordings, open_recording

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def refusal(path: Path | str) -> ProfilemateError:
    with pytest.raises(ProfilemateError) as caught:
        open_recording(path)
    return caught.value


def test_readers_say_what_they_read() -> None:
    assert [r.name for r in READERS] == [
        "nsys sqlite export",
        "nsys parquet export",
        "nsys report",
        "torch profiler trace",
    ]
    assert all(r.suffixes for r in READERS)


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = Export([Row(5, "pm1.preempt req=a")]).write(tmp_path / "misleading.nsys-rep")
    recording = open_recording(str(path))
    assert [m.text for m in recording.markers()] == ["pm1.preempt req=a"]
    assert recording.info.kind == "nsys sqlite export"


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "out.nsys-rep"
    path.touch()
    error = refusal(path)
    assert isinstance(error, InputError)
    assert str(error) == (
        f"The file is empty: {path}\n"
        "  The recording was interrupted, the copy broke off, or the disk was full.\n"
        "  Copy it again from where it was recorded, or record again."
    )


def test_a_png_named_like_a_report(tmp_path: Path) -> None:
    path = tmp_path / "out.nsys-rep"
    path.write_bytes(PNG)
    error = refusal(path)
    assert isinstance(error, NotThisFormatError)
    assert error.path == str(path)
    assert error.why == "Its name promises an nsys report, but it is a PNG image."
    assert "nsys report (.nsys-rep)" in error.hint


def test_a_png_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(PNG)
    assert refusal(path).why == "By its content it is a PNG image."


HELLO = gzip.compress(b"hello", mtime=0)  # the same in every process that collects this


@pytest.mark.parametrize(
    ("name", "content", "what", "hint"),
    [
        ("a.nsys-rep", b"what is this?", "nothing that profilemate knows", ".nsys-rep"),
        ("a.h5", b"\x89HDF\r\n\x1a\n123", "an HDF5 file", "nsys export --type sqlite"),
        ("a.arrows", b"\xff\xff\xff\xff\x08", "Arrow stream", "nsys export --type sqlite"),
        ("NVTX_EVENTS.parquet", b"PAR1abc", "a single parquet file", "directory"),
        ("a.qdstrm", b"\x01\x02", "never turned into a report", "QdstrmImporter -i /"),
        ("a.json", b' {"a": 1}', "JSON without the list traceEvents", ".json"),
        ("a.json", b"[]", "JSON without the list traceEvents", ".json"),
        ("a.json.gz", HELLO, "of something else than a trace", "Unpack it"),
        ("a.gz", HELLO, "a gzip file", "Unpack it"),
        ("a.gz", b"\x1f\x8bno gzip at all", "a gzip file", "Unpack it"),
    ],
)
def test_files_of_other_kinds(
    tmp_path: Path, name: str, content: bytes, what: str, hint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(path)
    assert isinstance(error, NotThisFormatError)
    assert what in error.why
    assert hint in error.hint + " ".join(error.commands)


@pytest.mark.parametrize("packed", [False, True])
def test_a_torch_profiler_trace_without_events(tmp_path: Path, packed: bool) -> None:
    text = b'{\n  "schemaVersion": 1,\n  "traceEvents": [\n  ]\n}'
    path = tmp_path / ("rank0.pt.trace.json" + ".gz" * packed)
    path.write_bytes(gzip.compress(text) if packed else text)
    recording = open_recording(path)
    with pytest.raises(InputError) as caught:
        list(recording.markers())
    assert caught.value.what == "The torch profiler trace holds no events"


def test_a_path_that_does_not_exist_suggests_what_is_nearly_called_so(tmp_path: Path) -> None:
    (tmp_path / "run-7.nsys-rep").write_bytes(PNG)
    (tmp_path / "notes.txt").write_bytes(PNG)
    for name in ("run_7.nsys-rep", "run-7"):
        error = refusal(tmp_path / name)
        assert error.what == "No such file or directory"
        assert error.hint == f"Did you mean {tmp_path / 'run-7.nsys-rep'}?"


def test_a_path_that_is_like_nothing_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "zzz").commands == (f"ls {tmp_path}",)
    assert refusal(tmp_path / "no" / "such" / "folder").hint == "Check the path."


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, who may read everything.
    path = tmp_path / "out.nsys-rep"
    path.write_bytes(PNG)
    real = io.open

    def no(file: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(file) == path:
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", no)
    error = refusal(path)
    assert isinstance(error, InputError)
    assert (error.why, error.commands) == ("Permission denied", (f"ls -ld {path}",))


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "out.nsys-rep"
    path.symlink_to(path)
    error = refusal(path)
    assert error.what == "Cannot read this"
    assert "symbolic links" in error.why


def test_a_pipe_and_a_socket(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").what == "This is neither a file nor a directory"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket").what == "This is neither a file nor a directory"


def test_a_directory_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    error = refusal(tmp_path)
    assert error.what == "There is no recording in this directory"
    for word in (".nsys-rep", ".sqlite", ".parquet", ".json.gz"):
        assert word in error.why


def test_a_directory_of_recordings_names_them(tmp_path: Path) -> None:
    for name in "abcdefgh":
        Export([Row(1, "pm1.preempt")]).write(tmp_path / f"{name}.sqlite")
    error = refusal(tmp_path)
    assert error.why == "It holds 8."
    (command,) = error.commands
    names = [str(tmp_path / f"{name}.sqlite") for name in "abcdef"]
    assert shlex.split(command) == ["profilemate", "parse", *names]


def test_recordings_in_a_directory_each_once(tmp_path: Path) -> None:
    (tmp_path / "b.nsys-rep").write_bytes(b"NVIDIA Tegra Profiler Report 2023@4@4@54-1\n")
    (tmp_path / "a.nsys-rep").write_bytes(b"NVIDIA Tegra Profiler Report 1.\n")
    Export().write(tmp_path / "a.sqlite")
    (tmp_path / "c.png").write_bytes(PNG)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty.sqlite").touch()
    assert find_recordings(tmp_path) == [tmp_path / "a.sqlite", tmp_path / "b.nsys-rep"]
    with pytest.raises(InputError, match="Cannot read this"):
        find_recordings(tmp_path / "nowhere")
