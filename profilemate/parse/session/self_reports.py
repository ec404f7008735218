"""What the processes say of themselves beside their events: configuration, and what they missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from profilemate.parse.session.metadata_parts import Unseen
from profilemate.parse.trace.ranks import Process, RankTrace
from profilemate.parse.trace.trace import Trace
from profilemate.schema.config import CONFIG, setting_value
from profilemate.schema.hooks import ENGINE_KINDS, SUFFICIENT, HookReport, unseen

Settings = Mapping[str, int | float | bool | str]
"""Name of the setting, as vLLM has it, to its value; what is not known is not there."""


def settings_of(trace: Trace, ranks: Sequence[RankTrace]) -> Settings:
    """The settings of the lead rank's engine.

    The scheduler's process is asked first: it alone has the size of the pool. What it does not know
    its workers may. Of a repeated event the last one counts: some is chosen while an engine starts.
    """
    said = trace.frames["config"]
    said = said[said["engine"].isna()]
    if not len(said) or not ranks:
        return {}
    lead = ranks[0]
    of_engine = [p for rank in ranks for p in rank.processes if _is_of(p, lead)]
    found: dict[str, int | float | bool | str] = {}
    for process in sorted(of_engine, key=lambda p: "engine" not in p.role):
        rows = said[said["pid"] == process.pid]
        for setting in CONFIG:
            value = _last(rows[setting.field.name])
            if value is not None and setting.name not in found:
                plain = setting_value(setting, value)
                if isinstance(plain, int | float | str):
                    found[setting.name] = plain
    return {s.name: found[s.name] for s in CONFIG if s.name in found}


def _is_of(process: Process, lead: RankTrace) -> bool:
    return (process.dp or 0) == lead.rank.dp


def _last(column: pd.Series) -> int | bool | str | None:
    known = column.dropna()
    if not len(known):
        return None
    value = known.iloc[-1]
    if column.dtype == "boolean":
        return bool(value)
    return int(value) if column.dtype == "Int64" else str(value)


def several_engines(trace: Trace) -> list[str]:
    """A sentence for each process that ran several engines: its tables are not of one alone."""
    said = trace.frames["config"]
    further = said[said["engine"].notna()]
    count: dict[int, int] = {}
    for pid, number in zip(further["pid"].tolist(), further["engine"].tolist(), strict=True):
        count[pid] = max(count.get(pid, 0), number + 1)
    return [
        f"Process {trace.aliases.get(pid, pid)} ran {engines} engines: the standard KV cache files "
        "are of the first one's pool, steps, requests and look-ups of all of them."
        for pid, engines in sorted(count.items())
    ]


def unseen_kinds(trace: Trace, ranks: Sequence[RankTrace]) -> tuple[Unseen, ...]:
    """Which events of which process may be missing because a hook failed or is not in."""
    said = trace.frames["hook"]
    if not len(said):
        return ()
    found = []
    for process in (p for rank in ranks for p in rank.processes):
        reports = reports_of(said[said["pid"] == process.pid])
        for kind in SUFFICIENT if reports else ():
            if ("engine" if kind in ENGINE_KINDS else "worker") not in process.role.split("+"):
                continue
            why = unseen(kind, reports)
            if why is not None:
                found.append(Unseen(trace.aliases.get(process.pid, process.pid), kind, why))
    return tuple(found)


def reports_of(said: pd.DataFrame) -> dict[str, HookReport]:
    """The last word on each hook, by name; `said` are the rows of one process."""
    last = said.drop_duplicates("name", keep="last")
    columns = (last[name].astype(object).fillna("") for name in ("name", "status", "why"))
    faults = last["faults"].fillna(0)
    return {
        str(name): HookReport(str(status), str(why), int(count))
        for name, status, why, count in zip(*columns, faults, strict=True)
    }
