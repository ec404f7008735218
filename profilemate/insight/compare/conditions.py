"""Conditions of --fail-on: a metric, a comparison, a number.

replay_p50>5%      B is more than 5 % above A
prefix_hit_pct<-10%  B is more than 10 % below A
padding_pct>+2     B is more than 2 above A, in the metric's own unit
preemptions>0      B itself is above 0
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from profilemate.errors import InputError
from profilemate.insight.compare.metrics import METRICS

Kind = Literal["relative", "change", "value"]

GRAMMAR = "NAME>N or NAME<N; N% is B's change relative to A, +N or -N its change, N is B itself"

_FORM = re.compile(r"\s*(\w+)\s*([<>])\s*([+-]?)(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as it was typed and as it is meant.

    Attributes:
        text: As typed.
        metric: A key of `METRICS`.
        above: True for `>`, False for `<`.
        number: The limit; in percent where relative.
        kind: What is compared with it: the `relative` change, the `change`, or the `value` of B.
    """

    text: str
    metric: str
    above: bool
    number: float
    kind: Kind

    def holds(self, a: float | None, b: float | None) -> bool:
        """Whether it is so.

        Raises:
            InputError: One of the sessions does not have the figure: no data, no verdict.
        """
        missing = "B" if b is None else "A"
        if b is None or (a is None and self.kind != "value"):
            raise InputError(
                f"{self.text!r} cannot be judged",
                why=f"Session {missing} has no {self.metric}.",
                hint="Leave it out of --fail-on, or record what it needs.",
            )
        found = b if self.kind == "value" else b - (a or 0.0)
        if self.kind == "relative" and found:
            found = 100 * found / a if a else float("inf") * found
        found = round(found, 9)  # 1.05 is 5 % above 1, and not more than that
        return found > self.number if self.above else found < self.number


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        InputError: It is none, or its metric is not known.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no condition",
            why=f"It must be {GRAMMAR}.",
            hint="For example --fail-on 'replay_p50>5%'",
        )
    name, sign, plus_minus, digits, percent = match.groups()
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        raise InputError(
            f"there is no metric {name!r}",
            why=f"Did you mean {near[0]}?" if near else "",
            hint="List them:",
            command="profilemate compare --metrics",
        )
    number = float(plus_minus + digits)
    kind: Kind = "relative" if percent else "change" if plus_minus else "value"
    return Condition(text.strip(), name, sign == ">", number, kind)
