"""What a session directory may lose: files of ours, and no other, whatever its metadata lists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from places import ROOT

from profilemate.errors import OutputError
from profilemate.parse.pipeline import parse_session
from profilemate.parse.tables import TABLES
from profilemate.parse.writers.in_place import updated
from profilemate.parse.writers.session_names import listed_files, session_file

MARKERS = (
    '{"ph":"M","cat":"profilemate","pid":4000,"tid":0,"name":"profilemate_sidecar",'
    '"args":{"role":"engine","dp":0,"segment":1}}',
    '{"ph":"i","cat":"profilemate","name":"pm1.batch t=1000 seq=1 | session ago=0 role=engine '
    'pid=4000 host=h dp=0 unix_ns=1795000000000000000 mono_ns=1000 faults=0","pid":4000,'
    '"tid":4000,"ts":1795000000000000.000,"s":"t"}',
    '{"ph":"M","cat":"profilemate","pid":4000,"tid":0,"name":"profilemate_end",'
    '"args":{"messages":1}}',
)

HOSTILE = (
    "{place}/precious.txt",
    "../precious.txt",
    "notes.txt",
    "markers/engine_dp0_pp0_tp0_4000.trace.json",
    "ranks/../../precious.txt",
    "ranks/dp0_pp0_tp1/../../../precious.txt",
    "kv_../../precious.txt",
    "ranks/dp0_pp0_tp1/notes.txt",
    "linked/precious.txt",
    "ranks/dp0_pp0_tp0/kv_cache_usage.csv",  # through a link, see below
    "",
    ".",
    "..",
)


def live_session(place: Path, files: object) -> Path:
    """A session with markers, files of the user's, and a link out of it."""
    session = place / "session"
    (session / "markers").mkdir(parents=True)
    text = "[\n" + ",\n".join(MARKERS) + "\n]\n"
    (session / "markers" / "engine_dp0_pp0_tp0_4000.trace.json").write_text(text)
    (session / "notes.txt").write_text("years of work")
    (session / "kv_my_own.csv.bak").write_text("years of work")
    (place / "precious.txt").write_text("years of work")
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "kv_cache_usage.csv").write_text("years of work")
    (session / "linked").symlink_to(place)
    (session / "ranks").mkdir()
    (session / "ranks" / "dp0_pp0_tp0").symlink_to(place / "elsewhere")
    facts = {"session_id": "x", "files": files}
    (session / "metadata.json").write_text(json.dumps(facts))
    return session


def precious(place: Path) -> dict[str, str]:
    return {
        str(p.relative_to(place)): p.read_text()
        for p in sorted(place.rglob("*"))
        if p.is_file() and p.read_text().startswith(("years", "[\n"))
    }


@pytest.mark.parametrize("in_place", [True, False])
def test_no_file_is_lost_that_a_session_lists(tmp_path: Path, in_place: bool) -> None:
    listed = [name.format(place=tmp_path) for name in HOSTILE]
    session = live_session(tmp_path, [*listed, "kv_of_an_older_version.csv", 7, None])
    (session / "kv_of_an_older_version.csv").write_text("a table of ours")
    copy = tmp_path / "copy.trace.json"
    shutil.copy(session / "markers" / "engine_dp0_pp0_tp0_4000.trace.json", copy)
    before = precious(tmp_path)
    if in_place:
        parse_session([session])
    else:
        parse_session([copy], session, force=True)
    assert precious(tmp_path) == before
    assert not (session / "kv_of_an_older_version.csv").exists()
    assert (session / "kv_cache_usage.csv").exists()


@pytest.mark.parametrize("files", [{"a": 1}, "metadata.json", None, 5, [["x"]]])
def test_a_listing_of_another_kind_is_none(tmp_path: Path, files: object) -> None:
    session = live_session(tmp_path, files)
    before = precious(tmp_path)
    parse_session([session])
    assert precious(tmp_path) == before


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    session = live_session(tmp_path, [])

    def write(new: Path) -> None:
        (new / "ranks" / "dp0_pp0_tp0").mkdir(parents=True)
        (new / "ranks" / "dp0_pp0_tp0" / "kv_cache_usage.csv").write_text("new")
        (new / "metadata.json").write_text(
            '{"files": ["metadata.json", "ranks/dp0_pp0_tp0/kv_cache_usage.csv"]}'
        )

    before = precious(tmp_path)
    with pytest.raises(OutputError):
        updated(session, write)
    assert precious(tmp_path) == before


def test_every_table_has_a_name_of_ours() -> None:
    ours = session_file(table.file for table in TABLES.values())
    assert all(ours(table.file) for table in TABLES.values())
    assert ours("ranks/dp0_pp0_tp1_2/ranks.csv")
    assert not ours("kv_my_notes.csv")
    assert listed_files({"files": ["custom_my_kind.csv", "my.csv"]}) == {"custom_my_kind.csv"}
    assert not any(ours(name.format(place=ROOT)) for name in HOSTILE if "tp0" not in name)
