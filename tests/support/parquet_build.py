"""Make of an sqlite export the directory of parquet files that nsys would have made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Types as 2023.4.4 writes them; what is not here is a string.
TYPES = {
    **dict.fromkeys(("start", "end", "eventType", "textId", "category"), pa.int64()),
    **dict.fromkeys(("globalTid", "domainId", "utcEpochNs", "duration"), pa.uint64()),
    "id": pa.int32(),
}


def convert(
    sqlite: Path,
    directory: Path,
    types: dict[str, Any] | None = None,
    *,
    every_column: bool = False,
    **how: Any,
) -> Path:
    """Make of an sqlite export the directory that nsys would have made."""
    types = TYPES | (types or {})
    directory.mkdir()
    with closing(sqlite3.connect(sqlite)) as db:
        tables = [t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            cursor = db.execute(f"SELECT * FROM {table}")
            names = [d[0] for d in cursor.description]
            rows = cursor.fetchall()
            if not rows:
                continue  # as nsys does, unless told --lazy=false
            columns = {
                name: pa.array(
                    [row[i] for row in rows],
                    types.get(name, pa.string() if isinstance(rows[0][i], str) else pa.int64()),
                )
                for i, name in enumerate(names)
                if every_column
                or name in types
                or name in ("name", "value", "text", "utcTime", "localTime")
            }
            pq.write_table(pa.table(columns), directory / f"{table}.parquet", **how)
    return directory
