"""Writers: tables to files, one file per format.

They know tables and nothing of where these came from. A writer's options belong to its
constructor; `write` takes the tables. How a table is spelled is told to a writer as data (the
layout), so that tables and writers stay apart.
"""

from __future__ import annotations

from profilemate.parse.writers.csv_session import CsvSession
from profilemate.parse.writers.perfetto import Perfetto

__all__ = ["CsvSession", "Perfetto"]
