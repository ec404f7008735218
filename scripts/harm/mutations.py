"""Damage recordings and sessions at random: bytes, JSON values, cells of tables, whole files."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7.5, -0.0, "", "0", "NaN", "None", "x", "a,b", "=1+1"),
    *(2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, -(10**30), 1e308, 1e-320),
    *(
        "\x1b[31mred\x1b[0m",
        "\u202eabc",
        "\ud800",
        "\0",
        "\n\r\t",
        "[red]",
        "../../x",
        "/etc/passwd",
    ),
    *([], {}, [[]], [None], {"a": {"b": []}}, ["x"] * 50, "9" * 5000, "[" * 3000),
    *("pm1.batch t=1 seq=1 | kv.alloc ago=0 dur=1 pool=0 used=1 ids=0-16777215,0-16777215 req=r",),
    *("pm1.part number=1 part=1/999999999 :x:", "pm1.step num_tokens=99999999999999999999"),
    *("execute_context_1(2)_generation_3(4)", "cudaGraphLaunch", "step[DECODE bs=1]"),
)
"""Values that somebody's file may hold where another one is expected."""

_SLICES = (
    b"\0" * 64,
    b'"',
    b"\\",
    b"}",
    b"]",
    b"{",
    b"[",
    b",",
    b"9" * 40,
    b"-",
    b"\xff",
    b"\n",
)


def damage_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, swap or insert a few bytes."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 8, 64, 512, 4096))
        what = rng.randrange(7)
        if what == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at : at + size]
        elif what == 2:
            data[at:at] = data[at : at + size]
        elif what == 3:
            data[at:at] = rng.choice(_SLICES)
        elif what == 4:
            data[at : at + size] = rng.randbytes(min(size, len(data) - at))
        elif what == 5:
            del data[at:]
        else:
            other = rng.randrange(len(data) + 1)
            data[at : at + size] = data[other : other + size]
    return bytes(data)


def damage_json(document: Any, rng: random.Random) -> Any:
    """Replace, remove or repeat a few values, wherever they are."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(document))
        if not places:
            return rng.choice(STRANGE)
        holder, key = rng.choice(places)
        what = rng.randrange(4)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif what == 2 and isinstance(holder, dict):
            holder[str(rng.choice(STRANGE))[:40]] = holder.pop(key)
        else:
            holder[key] = rng.choice(STRANGE)
    return document


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for key, one in enumerate(value):
            yield value, key
            yield from _places(one)


def damage_file(path: Path, rng: random.Random) -> None:
    """Damage one file in the way that its kind is most likely to be damaged, or as bytes."""
    if path.suffix == ".sqlite" and rng.random() < 0.7:
        damage_database(path, rng)
    elif path.suffix == ".gz" and rng.random() < 0.8:
        try:
            inner = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error):  # it was damaged before
            path.write_bytes(damage_bytes(path.read_bytes(), rng))
        else:
            path.write_bytes(gzip.compress(_damaged_text(inner, rng), 1))
    elif path.suffix == ".csv" and rng.random() < 0.7:
        damage_table(path, rng)
    else:
        path.write_bytes(_damaged_text(path.read_bytes(), rng))


def _damaged_text(raw: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.6:
        with suppress(ValueError, RecursionError):
            return json.dumps(damage_json(json.loads(raw), rng)).encode("utf-8", "surrogatepass")
    return damage_bytes(raw, rng)


def damage_database(path: Path, rng: random.Random) -> None:
    """Change cells, rows, columns or tables of an SQLite database."""
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error, OverflowError):
        for _ in range(rng.choice((1, 1, 2, 4))):
            tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master")]
            table = rng.choice(tables)
            columns = [r[1] for r in connection.execute(f'PRAGMA table_info("{table}")')]
            column = rng.choice(columns or ["rowid"])
            rows = rng.choice(("1", f"rowid % {rng.randrange(1, 9)} = 0", "rowid = 1"))
            value = rng.choice([v for v in STRANGE if not isinstance(v, list | dict)])
            statement, values = rng.choice(
                [
                    (f'UPDATE "{table}" SET "{column}" = ? WHERE {rows}', (value,)),
                    (f'UPDATE "{table}" SET "{column}" = ? WHERE {rows}', (value,)),
                    (f'UPDATE "{table}" SET "{column}" = -"{column}" WHERE {rows}', ()),
                    (f'DELETE FROM "{table}" WHERE {rows}', ()),
                    (f'INSERT INTO "{table}" SELECT * FROM "{table}"', ()),
                    (f'ALTER TABLE "{table}" DROP COLUMN "{column}"', ()),
                    (f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "other"', ()),
                    (f'DROP TABLE "{table}"', ()),
                ]
            )
            connection.execute(statement, values)
        connection.commit()


def damage_table(path: Path, rng: random.Random) -> None:
    """Change cells, rows or columns of a CSV file."""
    rows = [line.split(",") for line in path.read_text("utf-8", "replace").split("\n")]
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows)
        what = rng.randrange(4) if row else 2
        if what == 0:
            row[rng.randrange(len(row))] = str(rng.choice(STRANGE))
        elif what == 1:
            del row[rng.randrange(len(row))]
        elif what == 2:
            rows.insert(rng.randrange(len(rows)), list(row))
        else:
            column = rng.randrange(max(len(rows[0]), 1))
            value = str(rng.choice(STRANGE))
            for one in rows[rng.randrange(2) :]:
                if column < len(one):
                    one[column] = value
    text = "\n".join(",".join(row) for row in rows)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def damage_folder(folder: Path, rng: random.Random) -> None:
    """Damage a few files of a directory, or what lies in it as a whole."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        if not files:
            return
        file = rng.choice(files)
        action: Callable[[], object] = rng.choice(
            [
                *[lambda file=file: damage_file(file, rng)] * 12,
                file.unlink,
                lambda file=file: file.write_bytes(b""),
                lambda file=file: shutil.copy(file, file.with_name(f"copy_{file.name}")),
                lambda file=file: file.rename(file.with_name(f"{file.name}.old")),
                lambda file=file: (file.unlink(), file.mkdir()),
                lambda file=file: (file.unlink(), file.symlink_to("/nowhere")),
            ]
        )
        with suppress(OSError):
            action()
