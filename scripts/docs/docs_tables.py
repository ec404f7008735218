"""Writes docs/tables.md: every table and column, as the code defines them."""

from __future__ import annotations

from pathlib import Path

from profilemate.parse.tables import TABLES, Table

TARGET = Path(__file__).resolve().parents[2] / "docs" / "tables.md"

HEAD = """# The tables

Made by `scripts/docs/docs_tables.py` from the code. Times are seconds since the start of the
recording unless the column says otherwise; `None` is what the recording cannot tell. Columns of the
standard files never change; what is new comes in files of its own.

Texts stand in the files as they were recorded, and whoever names a request, a host or a kernel may
name it `=HYPERLINK(...)`: a spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a
carriage return as a formula. Import the columns as text, or write the session with
`profilemate parse --safe-csv`: such texts, and those that have apostrophes before it, then begin
with one more apostrophe, and `metadata.json` says `"safe_csv": true`. `profilemate report`,
`compare` and `export` take it off again; programs of your own have to. Numbers are never touched.
"""


def section(table: Table) -> str:
    """One table in Markdown."""
    kind = "Standard file. " if table.standard else ""
    rows = "\n".join(f"| `{c.name}` | {c.doc.replace('|', '/')} |" for c in table.columns)
    return f"## {table.file}\n\n{kind}{table.doc}\n\n| column | meaning |\n| --- | --- |\n{rows}\n"


def text() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(section, TABLES.values())])


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
