"""What differs between two sessions that is no result: machines, versions, what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from profilemate.insight.reading import fact, object_of, objects, window
from profilemate.parse.session.saved import SavedSession

_LOADS = 1.25  # sessions that differ by more than this factor in length or steps are told


def caveats(a: SavedSession, b: SavedSession, duration: str) -> list[str]:
    """A sentence for each, the gravest first; none for two sessions of the same setting."""
    found = [
        f"{name} differ: {before} in A, {after} in B"
        for name, of in _SETTINGS.items()
        for before, after in [(of(a.metadata), of(b.metadata))]
        if before != after
    ]
    for what, key in (("CUDA graphs", "cuda_graph_tracking"), ("KV cache", "kv_cache_tracking")):
        has = [bool(s.metadata.get(key)) for s in (a, b)]
        if has[0] != has[1]:
            found.append(f"The {what} was recorded in {'A' if has[0] else 'B'} only")
    gpu = [bool(fact(s, "coverage", "launches_with_gpu_records")) for s in (a, b)]
    if gpu[0] != gpu[1]:
        found.append(
            f"GPU time of graphs is in {'A' if gpu[0] else 'B'} only: {duration} is compared"
        )
    elif duration and duration != "graph_gpu_ms":
        found.append(f"Neither has the GPU time of graphs: {duration} is compared, the host's time")
    for name, session in (("A", a), ("B", b)):
        dropped = session.metadata.get("dropped")
        if isinstance(dropped, dict) and dropped.get("lost_batches"):
            found.append(f"{name} lost events: its counts are too low")
    found += _lengths(a, b)
    if a.ranks() or b.ranks():
        found.append("Compared are the lead ranks; further ranks are not in any figure")
    return found


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


def _hosts(metadata: Mapping[str, Any]) -> str:
    return _joined({str(p["host"]) for p in objects(metadata, "processes") if p.get("host")})


def _recorders(metadata: Mapping[str, Any]) -> str:
    sources = objects(metadata, "sources")
    return _joined({str(s.get("recorder") or s.get("kind")) for s in sources})


def _ranks(metadata: Mapping[str, Any]) -> str:
    return _joined({str(p["rank"]) for p in objects(metadata, "processes") if p.get("rank")})


def _version(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda metadata: str(object_of(metadata, "versions").get(name) or "not known")


_SETTINGS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "Machines": _hosts,
    "vLLM versions": _version("vllm"),
    "torch versions": _version("torch"),
    "Recorders": _recorders,
    "Ranks": _ranks,
    "profilemate versions": _version("profilemate"),
    "Annotating profilemate versions": _version("profilemate_annotate"),
}
