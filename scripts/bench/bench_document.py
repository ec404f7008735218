"""docs/benchmarks.md, of which every benchmark writes its own chapter."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def put(title: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace the chapter of this title, or add it at the end.

    Args:
        title: Its heading.
        text: What stands below it; its own headings are of a lower rank.
        document: The document.
    """
    chapters = re.split(r"(?m)^(?=# )", document.read_text() if document.exists() else "")
    new = f"# {title}\n\n{text.strip()}\n"
    kept = [chapter.strip() + "\n" for chapter in chapters if chapter.strip()]
    for place, chapter in enumerate(kept):
        if chapter.partition("\n")[0] == f"# {title}":
            kept[place] = new
            break
    else:
        kept.append(new)
    document.write_text("\n".join(kept))
