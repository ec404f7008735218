"""Writes docs/findings.md: every finding and every metric, as the code defines them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from profilemate.insight.compare.metrics import METRICS
from profilemate.insight.findings import RULES
from profilemate.insight.findings.base import Rule
from profilemate.insight.findings.thresholds import THRESHOLDS

TARGET = Path(__file__).resolve().parents[2] / "docs" / "findings.md"

HEAD = """# Findings and comparisons

Made by `scripts/docs/docs_findings.py` from the rules themselves.

`profilemate report` asks a session the questions below. Each is answered by a finding, with its
evidence and, where one helps, the vLLM flag to turn, or is listed as not judged with the reason: no
data, no verdict. A finding is `critical` (act), a `warning` (look), `info` (know) or `good`.
`--fail-on warning` makes the exit code 1 for CI. Every threshold can be set:
`--threshold kv_usage_low=0.3`, or `--threshold limits.toml` with such lines.

Each finding stands for itself. Where two propose a list of capture sizes, one for less padding and
one for fewer captures, take the one that matters more to you and record again.

A session of several data-parallel engines is judged engine by engine; what is found on a further
one carries the name of its rank.

## findings.json

`profilemate report --json` prints it, `--write` puts it into the session.

| key | |
| --- | --- |
| `version` | 1; a change that breaks a reader raises it |
| `worst` | severity of the worst finding, null without any |
| `findings` | the findings, worst first; each has the keys below |
| `.rule` | stable id, as in the tables below |
| `.severity` | `critical`, `warning`, `info` or `good` |
| `.title`, `.detail` | the verdict in a line, the evidence in words: for people, may change |
| `.evidence` | the figures by name; `_pct` percent, `_sec` seconds, `_ms` milliseconds |
| `.source` | where the limit comes from |
| `.flag`, `.value`, `.why` | vLLM's flag to turn, the value to try, what it does; null if none |
| `.files` | files of the session it was read from |
| `.rank` | folder of the further rank it is about, else null |
| `unjudged` | rules that could not be judged: `rule`, `why`, `rank` |
"""

COMPARE = """# Comparisons

`profilemate compare A B` puts the figures of two sessions side by side, and each graph's latency.

**The test.** Per graph, the durations of the steps that ran on it, in order of time: GPU span where
both sessions have it, else the host's time. The effect is P(B > A) + P(B = A) / 2, a rank
statistic: no distribution is assumed, and a few slow steps do not carry it. Steps are not
independent (contexts grow, clocks drift), so its variance is that of a series: how many
independent steps a series is worth comes from an autoregression of its ranks, as with the
effective sample size of a Markov chain, and ten batches of consecutive placements of each side in
the other may say a larger variance, not a smaller one. The p-value is two-sided, from Student's t
with Welch's degrees of freedom; q-values after Benjamini and Hochberg correct for the number of
graphs. `slower` and `faster` are q < 0.05, `noise` is more. With fewer than 20 steps on a side,
or such as are worth fewer than 6 independent ones, nothing is said: `too few`. All graphs
together are tested as one series of each session, their steps in order of time: what slows one
graph slows those that run next to it. Nothing is drawn at random. [How often it is
wrong](false_alarms.md) was tried on drawn series of several kinds. What one run of each cannot
tell is how much two runs of the same thing differ: compare two such runs first.

**Conditions.** `--fail-on CONDITION` makes the exit code 1 when it holds; it may be repeated.

```
condition = metric ( ">" | "<" ) number
number    = digits "%"         B's change relative to A, in percent
          | ("+" | "-") digits B's change, in the metric's unit
          | digits             B itself
```

`replay_p50>5%`: B's median replay is more than 5 % above A's. `prefix_hit_pct<-2`: B's hit rate is
more than 2 points below A's. `preemptions>0`: B has any. A figure that a session does not have is
an error (exit code 2), not a pass.
"""


def rule(of: Rule) -> str:
    """One rule in Markdown."""
    verdicts = "\n".join(
        f"| `{name}` | {found.severity} | {found.when} |" for name, found in of.verdicts.items()
    )
    names = ", ".join(f"`{n}` ({THRESHOLDS[n].default:g})" for n in of.thresholds)
    return "\n\n".join(
        [
            f"### {of.question}",
            f"`{of.name}`. {of.doc}",
            f"| finding | severity | when |\n| --- | --- | --- |\n{verdicts}",
            f"Limits of it: {of.limits}",
            f"Thresholds: {names or 'none'}. Source: {of.source}. Read from "
            + ", ".join(f"`{f}`" for f in of.files)
            + ".",
        ]
    )


def text() -> str:
    """The whole page."""
    parts = [HEAD.rstrip()]
    for area, rules in groupby(RULES, key=lambda r: r.area):
        parts += [f"## {area}", *map(rule, rules)]
    rows = "\n".join(f"| `{t.name}` | {t.default:g} | {t.doc} |" for t in THRESHOLDS.values())
    parts += ["## Thresholds", f"| threshold | default | |\n| --- | --- | --- |\n{rows}"]
    rows = "\n".join(f"| `{m.name}` | {m.unit} | {m.doc} |" for m in METRICS.values())
    parts += [COMPARE.rstrip(), f"| metric | unit | |\n| --- | --- | --- |\n{rows}"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
