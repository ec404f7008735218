"""What differs between two sessions that is no result: machines, versions, what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from profilemate.insight.reading import window
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.session.warnings import CLOCKS, COUNTS, of_kinds
from profilemate.schema.config import CONFIG

_TRACKED: Mapping[str, Callable[[Metadata], bool]] = {
    "CUDA graphs": lambda metadata: bool(metadata.cuda_graph_tracking),
    "KV cache": lambda metadata: bool(metadata.kv_cache_tracking),
}
_NONE = "none"
_LOADS = 1.25  # sessions that differ by more than this factor in length or steps are told


def caveats(a: SavedSession, b: SavedSession, duration: str) -> list[str]:
    """A sentence for each, the gravest first; none for two sessions of the same setting."""
    found = _configured(a.metadata.config, b.metadata.config)
    found += [
        f"{name} differ: {before} in A, {after} in B"
        for name, of in _SETTINGS.items()
        for before, after in [(of(a.metadata), of(b.metadata))]
        if before != after
    ]
    for what, tracked in _TRACKED.items():
        has = [tracked(s.metadata) for s in (a, b)]
        if has[0] != has[1]:
            found.append(f"The {what} was recorded in {'A' if has[0] else 'B'} only")
    gpu = [bool(s.metadata.coverage.get("launches_with_gpu_records")) for s in (a, b)]
    if gpu[0] != gpu[1]:
        found.append(
            f"GPU time of graphs is in {'A' if gpu[0] else 'B'} only: {duration} is compared"
        )
    elif duration and duration != "graph_gpu_ms":
        found.append(f"Neither has the GPU time of graphs: {duration} is compared, the host's time")
    for name, session in (("A", a), ("B", b)):
        told = of_kinds(session.warnings, (*COUNTS, *CLOCKS, "columns-missing"))
        found += [f"{name}: {text}" for text in told]
    found += _lengths(a, b)
    if a.ranks() or b.ranks():
        found.append("Compared are the lead ranks; further ranks are not in any figure")
    return found


def _configured(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Settings of vLLM that differ, of those that both recorded."""
    if bool(a) != bool(b):
        return [f"vLLM's configuration was recorded in {'A' if a else 'B'} only"]
    # What one of the two does not have is off there, or not known to that vLLM.
    return [
        f"vLLM's {s.name} differs: {a.get(s.name, _NONE)} in A, {b.get(s.name, _NONE)} in B"
        for s in CONFIG
        if a.get(s.name, _NONE) != b.get(s.name, _NONE)
    ]


def _lengths(a: SavedSession, b: SavedSession) -> list[str]:
    times = [window(s) for s in (a, b)]
    if times[0] is None or times[1] is None:
        return []
    first, second = (end - begin for begin, end in (times[0], times[1]))
    if max(first, second) <= _LOADS * min(first, second):
        return []
    return [f"A is {first:.1f} s long, B {second:.1f} s: counts differ for that alone"]


def _joined(values: set[str]) -> str:
    return ", ".join(sorted(values)) or "not known"


def _hosts(metadata: Metadata) -> str:
    return _joined({p.host for p in metadata.processes if p.host})


def _recorders(metadata: Metadata) -> str:
    return _joined({str(s.by) for s in metadata.sources})


def _ranks(metadata: Metadata) -> str:
    return _joined({p.rank for p in metadata.processes if p.rank})


def _version(name: str) -> Callable[[Metadata], str]:
    return lambda metadata: metadata.versions.get(name) or "not known"


_SETTINGS: Mapping[str, Callable[[Metadata], str]] = {
    "Machines": _hosts,
    "vLLM versions": _version("vllm"),
    "torch versions": _version("torch"),
    "Recorders": _recorders,
    "Ranks": _ranks,
    "profilemate versions": _version("profilemate"),
    "Annotating profilemate versions": _version("profilemate_annotate"),
}
