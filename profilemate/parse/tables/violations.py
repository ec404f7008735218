"""Where checks of a recording put what they find."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Violations:
    """How often each invariant does not hold, and the first case in words, by its name."""

    counts: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        """Whether that invariant is violated."""
        return name in self.counts

    def add(self, name: str, count: int, example: str) -> None:
        """Count cases; none is none."""
        if count:
            before, first = self.counts.get(name, (0, example))
            self.counts[name] = before + count, first


def seconds(ns: int) -> str:
    """A time as a sentence has it."""
    return f"{ns / 1e9:.6f} s"
