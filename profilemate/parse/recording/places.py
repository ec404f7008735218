"""Which rank of a run a recording is of, where its processes do not say so themselves."""

from __future__ import annotations

import re

Place = tuple[int | None, int | None, int | None] | tuple[int]
"""Data-, pipeline- and tensor-parallel rank, None for what is not said; or the rank in the world
alone, where nothing says how that is divided."""

_FILE_NAME = re.compile(r"(?:^|[^a-zA-Z0-9])dp(\d{1,6})_pp(\d{1,6})_tp(\d{1,6})(?![0-9])")
_IN_LABEL = {name: re.compile(rf"(?<![A-Za-z]){name}(\d{{1,6}})") for name in ("DP", "PP", "TP")}
_LABELLED = re.compile(r"(.*[^0-9])(\d{1,18})\s*")


def place_in_name(name: str) -> Place | None:
    """What vLLM's name of a file says: `dp0_pp0_tp2_dcp0_ep2_rank2.17000.pt.trace.json.gz`."""
    found = _FILE_NAME.search(name)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def labelled(pid: object) -> tuple[str, int] | None:
    """Label and number of a process in a file that was merged: `[TP00] 251`; None for others."""
    found = _LABELLED.fullmatch(pid) if isinstance(pid, str) else None
    if found is None or not found[1].strip() or found[1] == "-":
        return None
    return found[1].strip(), int(found[2])


def place_in_label(label: str) -> Place | None:
    """What such a label says."""
    numbers = [found and int(found[1]) for found in (p.search(label) for p in _IN_LABEL.values())]
    dp, pp, tp = numbers
    return None if dp is pp is tp is None else (dp, pp, tp)
