"""How the values of a column are spelled, by the `spelling` of its table's layout.

Rounding happens here and nowhere else. Times are rounded in integers, half away from zero, so that
a value is spelled the same on every machine; NA is None throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.schema import encode_ids


def _where_known(known: npt.NDArray[np.bool_], texts: Iterable[str]) -> list[str]:
    """The texts of the values that are known, and None for the others."""
    if known.all():
        return list(texts)
    if not known.any():
        return ["None"] * len(known)
    spelled = np.full(len(known), "None", dtype=object)
    spelled[known] = list(texts)
    return cast("list[str]", spelled.tolist())


def spell_values(column: pd.Series) -> list[str]:
    """Integers, booleans and strings as Python prints them."""
    known = column.notna().to_numpy(dtype=bool)
    return _where_known(known, map(str, column.to_numpy(dtype=object)[known].tolist()))


def spell_ids(column: pd.Series) -> list[str]:
    """Tuples of block ids as ranges, as on the wire: `5-7,12`; no ids at all are an empty field."""
    known = column.notna().to_numpy(dtype=bool)
    return _where_known(known, map(encode_ids, column.to_numpy(dtype=object)[known]))


_THOUSAND = [f"{i:03d}" for i in range(1000)]  # looked up: a third of the time of formatting


def _fixed(digit_ns: int, decimals: int) -> Callable[[pd.Series], list[str]]:
    assert decimals in (3, 6)

    def spell(column: pd.Series) -> list[str]:
        known = column.notna().to_numpy(dtype=bool)
        ns = column[known].to_numpy(dtype=np.int64)
        digits = (np.abs(ns) + digit_ns // 2) // digit_ns
        head, last = (part.tolist() for part in np.divmod(digits, 1000))
        if decimals == 3:
            texts = [f"{w}.{_THOUSAND[c]}" for w, c in zip(head, last, strict=True)]
        else:
            texts = [
                f"{w // 1000}.{_THOUSAND[w % 1000]}{_THOUSAND[c]}"
                for w, c in zip(head, last, strict=True)
            ]
        for i in np.flatnonzero((ns < 0) & (digits > 0)).tolist():
            texts[i] = "-" + texts[i]
        return _where_known(known, texts)

    return spell


def _share(factor: int, decimals: int) -> Callable[[pd.Series], list[str]]:
    def spell(column: pd.Series) -> list[str]:
        known = column.notna().to_numpy(dtype=bool)
        # A share is a float; the product and its printing are exact IEEE and so the same anywhere.
        shares = column[known].to_numpy(dtype=np.float64) * factor
        return _where_known(known, [f"{share:.{decimals}f}" for share in shares.tolist()])

    return spell


DECIMALS = {
    "seconds": (1_000_000, 3),
    "fine_seconds": (1_000, 6),
    "milliseconds": (1_000, 3),
    "fine_milliseconds": (1, 6),
}
"""Spellings of times: ns of the last digit, and decimals."""

SHARES = {"percent": (100, 2), "ratio": (1, 4)}
"""Spellings of shares: what 1 is, and decimals."""

SPELLINGS: dict[str, Callable[[pd.Series], list[str]]] = {
    "value": spell_values,
    "ids": spell_ids,
    **{name: _fixed(*how) for name, how in DECIMALS.items()},
    **{name: _share(*how) for name, how in SHARES.items()},
}

UNITS = {
    "seconds": "s",
    "fine_seconds": "s",
    "milliseconds": "ms",
    "fine_milliseconds": "ms",
    "percent": "%",
}
"""What follows the number in a text for people; in a CSV file the header says it."""
