"""Where the releases of nsys keep things: the only place that knows what a table is called.

One row per table, newest names first. A release that renames a table or a column is a name more in
its row; one that drops something needs nothing, since whatever an export lacks reads as NULL. Seen
in real exports: 2022.4 (export schema 3.0), 2023.4 (3.7) and 2026.2 (3.25).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from profilemate.parse.columns.arrays import Ints

Tables = Mapping[str, Collection[str]]
"""What an export holds: table name -> its column names."""

Role = Literal["events", "strings", "export", "capture", "session", "details", "diagnostics", "gpu"]

# NVTX event types. The same numbers in all three releases, with ENUM_NSYS_EVENT_TYPE naming them.
MARK, PUSH_POP_RANGE, START_END_RANGE = 34, 59, 60
EVENT_TYPES = (MARK, PUSH_POP_RANGE, START_END_RANGE)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table as we want it.

    Attributes:
        role: What it is to us. Several tables may have the role `gpu`.
        called: Its names, newest first.
        columns: Our name of a column -> its names, newest first.
        required: Columns (our names) without which the table is of no use.
        times: Columns (our names) that hold time stamps: first and last of a row.
        strings: Columns (our names) that refer to `strings`.
    """

    role: Role
    called: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _gpu(name: str, *columns: str, strings: tuple[str, ...] = ()) -> TableSpec:
    every = _same("start", "end", "correlationId", *columns, *strings)
    return TableSpec("gpu", (name,), every, times=("start", "end"), strings=strings)


_DEVICE = ("globalPid", "deviceId", "contextId", "streamId")
_NODE = ("graphNodeId", "graphId")
_HOST = ("eventClass", "globalTid")
_CREATED = ("graphNodeId", "originalGraphNodeId", "graphId", "originalGraphId", "graphExecId")

NARROW = frozenset(
    ("deviceId", "streamId", "correlationId", "nameId", "demangledName", "shortName")
)
"""Columns whose numbers are unsigned ones of 32 bits; larger ones are read all the same, slowly."""

LAYOUT = (
    TableSpec(
        "events",
        ("NVTX_EVENTS",),
        # 2022.4 and 2023.4 put all texts into StringIds (textId), 2026.2 has them inline (text).
        _same("start", "end", "eventType", "text", "textId", "globalTid", "domainId", "category"),
        required=("start", "eventType", "globalTid"),
        times=("start", "end"),
        strings=("textId",),
    ),
    TableSpec("strings", ("StringIds",), _same("id", "value"), required=("id", "value")),
    TableSpec(
        "export",
        ("META_DATA_EXPORT", "EXPORT_META_DATA"),  # the second until 2022.4
        _same("name", "value"),
        required=("name", "value"),
    ),
    TableSpec(
        "capture", ("META_DATA_CAPTURE",), _same("name", "value"), required=("name", "value")
    ),
    TableSpec("session", ("TARGET_INFO_SESSION_START_TIME",), _same("utcEpochNs")),
    TableSpec("details", ("ANALYSIS_DETAILS",), _same("duration")),
    TableSpec("diagnostics", ("DIAGNOSTIC_EVENT",), _same("timestamp", "severity", "text")),
    _gpu("CUPTI_ACTIVITY_KIND_RUNTIME", *_HOST, "returnValue", strings=("nameId",)),
    _gpu(
        "CUPTI_ACTIVITY_KIND_KERNEL",
        *_DEVICE,
        *_NODE,
        strings=("demangledName", "shortName", "mangledName"),
    ),
    _gpu("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", *_DEVICE, "graphId", "graphExecId"),
    _gpu("CUPTI_ACTIVITY_KIND_MEMCPY", *_DEVICE, *_NODE, "bytes", "copyKind"),
    _gpu("CUPTI_ACTIVITY_KIND_MEMSET", *_DEVICE, *_NODE, "bytes"),
    _gpu("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", *_DEVICE, "syncType"),
    # Creation of graphs and of their nodes; until 2023.4 both in the second.
    _gpu("CUDA_GRAPH_NODE_EVENTS", *_HOST, *_CREATED, strings=("nameId",)),
    _gpu("CUDA_GRAPH_EVENTS", *_HOST, *_CREATED, strings=("nameId",)),
)

_Id = TypeVar("_Id", int, Ints)


def pid_and_tid(global_id: _Id) -> tuple[_Id, _Id]:
    """Process and thread of a `globalTid`, or of many; of a `globalPid` the thread is 0.

    24 bits each, below what tells virtual machines and hosts apart.
    """
    return (global_id >> 24) & 0xFFFFFF, global_id & 0xFFFFFF


EXPORT_FACTS = {
    "product": "EXPORT_PRODUCT_NAME",
    "version": "EXPORT_PRODUCT_VERSION",
    "schema": "EXPORT_SCHEMA_VERSION",
    # All time stamps were shifted by so many ns: `nsys export --ts-normalize`, `--ts-shift`.
    "shift": "EXPORT_CONFIG_TIME_SHIFT",
    # Written by `profilemate scrub`, which drops most of what the window was made of.
    "window": "PROFILEMATE_WINDOW",
    "scrubbed": "PROFILEMATE_SCRUBBED",
}
"""Rows of the table `export` that we read: our name -> theirs."""

CAPTURE_FACTS = {"graph_trace": "CUDA_GRAPH_TRACE_OPTIONS:MODE"}
"""Rows of the table `capture` that matter to us: our name -> theirs."""

SEVERITIES = {2: "warning", 3: "error"}
"""Severities of the table `diagnostics` that a user should hear of."""


@dataclass(frozen=True, slots=True)
class Found:
    """A table that an export has.

    Attributes:
        table: Its name there.
        columns: Our name of a column -> its name there, only those that it has.
    """

    spec: TableSpec
    table: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Required columns (our names) that it lacks."""
        return tuple(name for name in self.spec.required if name not in self.columns)


def _find(spec: TableSpec, tables: Tables) -> Found | None:
    for table in spec.called:
        if table in tables:
            have = tables[table]
            names = {
                ours: next((name for name in theirs if name in have), None)
                for ours, theirs in spec.columns.items()
            }
            return Found(spec, table, {k: v for k, v in names.items() if v is not None})
    return None


def locate(tables: Tables) -> list[Found]:
    """Every table of `LAYOUT` that an export has; an empty list is no nsys export."""
    return [found for spec in LAYOUT if (found := _find(spec, tables)) is not None]


def by_role(found: Collection[Found], role: Role) -> Found | None:
    """The table of a role, None where the export lacks it."""
    return next((f for f in found if f.spec.role == role), None)


def wanted_tables() -> tuple[str, ...]:
    """Every name of a table we read, for `nsys export --tables`."""
    return tuple(dict.fromkeys(name for spec in LAYOUT for name in spec.called))
