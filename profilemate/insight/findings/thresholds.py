"""The numbers that findings turn on: one row each, and how a user sets them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from profilemate.errors import InputError


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that a rule turns on; shares are 0 to 1."""

    name: str
    default: float
    doc: str


_ROWS = (
    Threshold("kv_usage_low", 0.40, "peak KV usage below this: over-provisioned"),
    Threshold("kv_usage_good_from", 0.60, "peak KV usage from here: good balance"),
    Threshold("kv_usage_good_to", 0.80, "peak KV usage up to here: good balance"),
    Threshold("kv_usage_full", 0.90, "peak KV usage above this: under-provisioned"),
    Threshold("kv_full_time", 0.01, "share of time above kv_usage_full up to here: a moment"),
    Threshold("kv_life_sec", 10.0, "seconds from allocation that cached content should live"),
    Threshold("kv_early_share", 0.50, "share of evictions before that: the cache churns"),
    Threshold("kv_idle_sec", 5.0, "seconds without use after which evicted content was stale"),
    Threshold("kv_evictions_min", 20, "evictions that a verdict on lives needs"),
    Threshold("preempt_lost_share", 0.05, "share of computed tokens lost: critical"),
    Threshold("prefix_hit_low", 0.10, "share of prompt tokens hit below this: low"),
    Threshold("prefix_lookups_min", 20, "look-ups that a verdict on the hit rate needs"),
    Threshold("waiting_share", 0.10, "share of steps after which requests may wait"),
    Threshold("graph_steps_min", 10, "model steps that a verdict on CUDA graphs needs"),
    Threshold("graph_share_good", 0.90, "share of steps on graphs from here: good"),
    Threshold("eager_decode_share", 0.01, "share of decode steps that may run eagerly"),
    Threshold("dominant_share", 0.50, "share of replays of one graph: a uniform workload"),
    Threshold("diverse_share", 0.20, "the hottest graph has less than this: a diverse workload"),
    Threshold("unused_capture_sec", 10.0, "seconds spent on graphs never replayed: too many"),
    Threshold("padding_good", 0.05, "share of padded tokens up to here: good"),
    Threshold("padding_high", 0.20, "share of padded tokens from here: wasteful"),
    Threshold("launch_bound_share", 0.10, "share of graph steps that may be launch-bound"),
    Threshold("gpu_busy_low", 0.50, "GPU busy in the median decode step below this: host-bound"),
    Threshold("jitter_ratio", 2.0, "p99 over median of a graph's GPU span: uneven"),
    Threshold("jitter_steps_min", 200, "replays of a graph that a verdict on jitter needs"),
    Threshold("straggler_ratio", 1.10, "replay latency over the median rank's: a straggler"),
    Threshold("launches_missing_share", 0.01, "share of launches that may lack GPU records"),
    Threshold("clock_error_ms", 10.0, "alignment error above this: engine and GPU times apart"),
)

THRESHOLDS: dict[str, Threshold] = {t.name: t for t in _ROWS}


class Thresholds:
    """Every threshold's value.

    Args:
        values: Those that are not at their default.

    Raises:
        InputError: There is no threshold of such a name, or a value is no number that it may be.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, float] | None = None) -> None:
        self._values = {t.name: t.default for t in THRESHOLDS.values()}
        for name, value in (values or {}).items():
            self._values[_known(name)] = _number(name, value)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def changed(self) -> dict[str, float]:
        """Those that are not at their default."""
        return {n: v for n, v in self._values.items() if v != THRESHOLDS[n].default}

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Thresholds:
        """From the command line: each `name=value`, or the path of a TOML file of such lines.

        Raises:
            InputError: One of them says nothing that can be used.
        """
        values: dict[str, float] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if equals:
                values[_known(name.strip())] = _number(name, value)
            else:
                values.update(_file(Path(text)))
        return cls(values)


def _known(name: str) -> str:
    if name in THRESHOLDS:
        return name
    near = difflib.get_close_matches(name, THRESHOLDS, n=1)
    raise InputError(
        f"there is no threshold {name!r}",
        why=f"Did you mean {near[0]}?" if near else "",
        hint="List them:",
        command="profilemate report --thresholds",
    )


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is told so
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise InputError(
            f"the threshold {name} cannot be {value!r}",
            why="It must be a number, 0 or more.",
            hint=f"Its default: --threshold {name}={THRESHOLDS[name].default:g}",
        )
    return number


def _file(path: Path) -> dict[str, float]:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(
            "the thresholds cannot be read",
            path=path,
            why=str(e),
            hint="Give a name and a value (--threshold kv_usage_low=0.3), or a TOML file of such "
            "lines.",
        ) from e
    return {_known(name): _number(name, value) for name, value in read.items()}
