"""Writes docs/tables.md: every table and column, as the code defines them."""

from __future__ import annotations

from pathlib import Path

from profilemate.parse.tables import TABLES, Table

TARGET = Path(__file__).resolve().parents[2] / "docs" / "tables.md"

HEAD = """# The tables

Made by `scripts/docs/docs_tables.py` from the code. Times are seconds since the start of the
recording unless the column says otherwise; `None` is what the recording cannot tell. Columns of the
standard files never change; what is new comes in files of its own.
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
