"""Columns of integers straight from the pages of an SQLite database, a few thousand pages at once.

SQLite needs about 40 ns for each value that it hands out, a row at a time; numpy takes a tenth of
that for the same value from the page that it lies in. The format of the file is documented and
fixed for good (https://www.sqlite.org/fileformat2.html). What is read here is what a program that
writes recordings leaves behind: a table with rowids, its rows written once. Whatever else there may
be (a column that was added later, pages of an odd size, a number stored as a text or as a float,
damage) raises `UnusualError`, and the caller asks SQLite instead.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints

Bytes = npt.NDArray[np.uint8]

_MAGIC = b"SQLite format 3\x00"
_HEADER = 100  # bytes of the file's header
_INTERIOR, _LEAF = 5, 13  # kinds of pages of a table
_PAGES = (1 << 12, 1 << 13, 1 << 14, 1 << 15)  # sizes of pages; nsys writes the smallest of these
_LOCAL = 480  # bytes of a row that always lie on its page, whatever their size
_LEVELS = 12  # of a tree; SQLite itself stops at 20
_GAP = 8  # pages that are rather read in vain than skipped
_PIECES = 500  # that are read at once; Linux takes 1024
_SLACK = 256  # bytes behind the last page, so that a window may begin anywhere
_WORD = 8
_NULL, _FLOAT, _ONE, _TEXT = 0, 7, 9, 12  # types of values; 1 to 6 are integers, 8 is 0
_BITS = np.zeros(256, dtype=np.int64)  # that a number takes by its type
_BITS[: _ONE + 1] = (0, 8, 16, 24, 32, 48, 64, 64, 0, 0)


class UnusualError(Exception):
    """Something that is not read here: ask SQLite."""


def _require(condition: bool | np.bool_) -> None:
    if not condition:
        raise UnusualError


class Pages:
    """A database whose pages are read without SQLite; any thread may."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            UnusualError: It is none, or one that is not read here.
            OSError: It cannot be read.
        """
        self._file = os.open(path, os.O_RDONLY)
        try:
            head = os.pread(self._file, _HEADER, 0)
            _require(len(head) == _HEADER and head.startswith(_MAGIC))
            self.size = int.from_bytes(head[16:18], "big")
            _require(self.size in _PAGES and head[20] == 0)  # nothing reserved at a page's end
            _require(int.from_bytes(head[56:60], "big") == 1)  # texts in UTF-8
            self.count = os.fstat(self._file).st_size // self.size
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def leaves(self, root: int) -> Ints:
        """Numbers of the pages with a table's rows, in order of rowid.

        Raises:
            UnusualError: The tree is not one of a table with rowids, or damaged.
        """
        level = np.array([root], dtype=np.int64)
        for _ in range(_LEVELS):
            kind = int(self.read(level[:1])[0])
            if kind != _INTERIOR:
                _require(kind == _LEAF)
                return level
            level = self._children(level)
        raise UnusualError

    def _children(self, numbers: Ints) -> Ints:
        flat = self.read(numbers)
        base = np.arange(len(numbers)) * self.size
        _require((flat[base] == _INTERIOR).all())
        cell, cells = _cells(flat, self.size, len(numbers), head=12)
        last = np.cumsum(cells + 1) - 1
        found = np.empty(len(cell) + len(numbers), dtype=np.int64)
        right = np.zeros(len(found), dtype=bool)
        right[last] = True
        found[~right], found[right] = _big(flat, ">u4", cell), _big(flat, ">u4", base + 8)
        _require(len(found) <= self.count)
        return found

    def read(self, numbers: Ints) -> Bytes:
        """Pages one after the other, and some bytes more.

        Raises:
            UnusualError: The file ends before one of them.
        """
        flat = np.empty(len(numbers) * self.size + _SLACK, dtype=np.uint8)
        flat[-_SLACK:] = 0
        _require(numbers.min(initial=2) > 1 and numbers.max(initial=2) <= self.count)
        _require(len(numbers) > 0)
        step = np.diff(numbers)
        cuts = (np.flatnonzero(step != 1) + 1).tolist()
        pieces: list[Any] = []  # what follows each other in the file
        at, held = int(numbers[0]), 0
        for begin, end in pairwise([0, *cuts, len(numbers)]):
            first = int(numbers[begin])
            skipped = first - at
            if not 0 <= skipped <= _GAP or len(pieces) > _PIECES:
                self._fill(pieces, at, held)
                pieces, held = [], 0
            elif skipped:
                pieces.append(bytearray(skipped * self.size))
                held += skipped
            pieces.append(flat[begin * self.size : end * self.size].data)
            held += end - begin
            at = first + end - begin
        self._fill(pieces, at, held)
        return flat

    def _fill(self, pieces: list[Any], end: int, pages: int) -> None:
        """Read so many pages up to one into pieces of memory."""
        if pages:
            done = os.preadv(self._file, pieces, (end - pages - 1) * self.size)
            _require(done == pages * self.size)

    def rows(self, numbers: Ints, width: int, upto: int) -> Rows:
        """The rows of some leaves.

        Args:
            numbers: The pages.
            width: Columns of the table.
            upto: How many of them are going to be read, from the first on.

        Raises:
            UnusualError: Not all of them can be read.
        """
        return Rows(self.read(numbers), self.size, len(numbers), width, upto)


def _big(flat: Bytes, kind: str, at: Ints) -> Ints:
    """Numbers, the highest byte first, at some positions."""
    size = np.dtype(kind).itemsize
    window: npt.NDArray[Any] = np.ndarray(
        (len(flat) - size + 1,), dtype=kind, buffer=flat, strides=(1,)
    )
    return window[at].astype(np.int64)


def _cells(flat: Bytes, size: int, pages: int, head: int) -> tuple[Ints, Ints]:
    """Where each cell begins, in order, and how many each page has."""
    base = np.arange(pages) * size
    counts = _big(flat, ">u2", base + 3)
    most = int(counts.max(initial=0))
    _require(head + 2 * most <= size)
    halves: npt.NDArray[Any] = flat[: pages * size].view(">u2").reshape(pages, size // 2)
    pointers = halves[:, head // 2 : head // 2 + most].astype(np.int64)
    there = np.arange(most) < counts[:, None]
    # A pointer leads behind the list that it is in.
    behind = (pointers >= head + 2 * counts[:, None]) & (pointers < size - 3)
    _require((behind | ~there).all())
    cell: Ints = (pointers + base[:, None])[there]
    return cell, counts


class _Sum(NamedTuple):
    """What the values before a column take, of each row.

    Attributes:
        same: Bytes of those that take the same in all rows.
        more: Bytes of the others; None where there are none.
        bad: Rows of which one of them is a text, or not known; None for no row.
    """

    same: int
    more: Ints | None
    bad: npt.NDArray[np.bool_] | None


class Rows:
    """Rows of some leaves of a table, in order.

    A row is its length, its rowid (both of one to nine bytes), a header and the values. The header
    is its own length, and the type of each value: one byte, unless it is a long text. Most columns
    are of one type in all rows.

    Attributes:
        count: How many.
    """

    def __init__(self, flat: Bytes, size: int, pages: int, width: int, upto: int) -> None:
        self._flat = flat
        _require((flat[np.arange(pages) * size] == _LEAF).all())
        _require(8 * upto + width + 2 <= _LOCAL)
        cell, counts = _cells(flat, size, pages, head=8)
        self.count = len(cell)
        self._rowid = self._after(cell)
        self._head = self._after_rowid(counts)
        words = -(-(1 + upto) // _WORD)
        window: npt.NDArray[Any] = np.ndarray(
            (len(flat) - _SLACK + 1,), dtype=f"V{_WORD * words}", buffer=flat, strides=(1,)
        )
        types = window[self._head].view(np.uint64).reshape(self.count, words)
        every, some = (
            np.array([pick.reduce(types[:, n]) for n in range(words)], dtype=np.uint64)
            for pick in (np.bitwise_and, np.bitwise_or)
        )
        self._varies = (every ^ some).view(np.uint8) != 0
        self._every = every.view(np.uint8)  # the type of each column that does not vary
        self._types: Bytes = types.view(np.uint8)
        self._sums = [_Sum(0, None, None)]
        length: Any = self._types[:, 0] if self._varies[0] else int(self._every[0])
        # Shorter: a row from before a column was added. Longer: a type of more than one byte.
        _require(self.count == 0 or (np.min(length) > width and np.max(length) < 128))
        self._values = self._head + length
        # All that may be asked for lies on the page of its row.
        same, more, _ = self._before(upto)
        end = self._values + same if more is None else self._values + same + more
        _require((end <= (self._head | (size - 1)) + 1).all())

    def _after(self, at: Ints) -> Ints:
        """Where numbers of a variable length that begin at some positions end."""
        more = self._flat[at] >= 128
        at = at + 1
        while more.any():
            at += more
            more &= self._flat[at - 1] >= 128
            _require(int(at.max()) < len(self._flat) - _SLACK)
        return at

    def _after_rowid(self, counts: Ints) -> Ints:
        """Where the header of each row begins: rowids rise, and so do their lengths."""
        some = counts > 0
        last = np.cumsum(counts[some]) - 1
        first = last - counts[some] + 1
        short, long = (self._after(self._rowid[at]) - self._rowid[at] for at in (first, last))
        if np.array_equal(short, long):
            found: Ints = self._rowid + np.repeat(short, counts[some])
            return found
        return self._after(self._rowid)

    def rowids(self, at: Ints) -> Ints:
        """The rowids of some rows.

        Raises:
            UnusualError: One of them is not between 0 and 2 to the power of 56.
        """
        place, last = self._rowid[at], self._head[at] - 1
        longest = int((last - place).max(initial=0))
        _require(longest < 8)  # nine bytes are a rowid below 0 or beyond all rows
        found = np.zeros(len(at), dtype=np.int64)
        for step in range(longest + 1):
            byte = self._flat[place + step].astype(np.int64) & 127
            found = np.where(place + step <= last, (found << 7) | byte, found)
        return found

    def is_null(self, column: int) -> npt.NDArray[np.bool_]:
        """Of which rows a column is NULL."""
        found: npt.NDArray[np.bool_] = self._types[:, column + 1] == _NULL
        return found

    def is_text(self, column: int) -> npt.NDArray[np.bool_]:
        """Of which rows a column is a text, or bytes."""
        found: npt.NDArray[np.bool_] = self._types[:, column + 1] >= _TEXT
        return found

    def _before(self, column: int) -> _Sum:
        """What the values before a column take."""
        while len(self._sums) <= column:
            same, more, bad = self._sums[-1]
            at = len(self._sums)  # in the header: of the column before
            types: Bytes = self._types[:, at]
            if not self._varies[at]:
                types = self._every[at : at + 1]
                same += int(_BITS[types[0]]) >> 3
            else:
                bits = _BITS.take(types) >> 3
                more = bits if more is None else more + bits
            if (types > _ONE).any():
                wrong = np.broadcast_to(types > _ONE, self.count)
                bad = wrong if bad is None else bad | wrong
            self._sums.append(_Sum(same, more, bad))
        return self._sums[column]

    def _place(self, column: int, at: Ints | None) -> Ints:
        """Where the value of a column begins, of each of some rows.

        Raises:
            UnusualError: One of the values before it is a text, or is not known.
        """
        rows: Any = slice(None) if at is None else at
        same, more, bad = self._before(column)
        _require(bad is None or not bad[rows].any())
        found: Ints = self._values[rows] + same
        return found if more is None else found + more[rows]

    def check(self, column: int) -> None:
        """Make sure that `column` will give the integers of any rows.

        Raises:
            UnusualError: It would not.
        """
        _require(self._before(column).bad is None)
        self._integers(column, None)

    def _integers(self, column: int, at: Ints | None) -> Bytes:
        """The types of a column: of each row, or one where all are the same.

        Raises:
            UnusualError: One of them is not an integer.
        """
        types: Bytes = self._types[:, column + 1]
        if self.count and not self._varies[column + 1]:
            types = self._every[column + 1 : column + 2]
        elif at is not None:
            types = types[at]
        _require(int(types.max(initial=0)) <= _ONE and not (types == _FLOAT).any())
        return types

    def column(self, column: int, at: Ints | None = None) -> Ints:
        """The integers in a column, 0 for NULL; of some rows or of all.

        Raises:
            UnusualError: One of them is not an integer.
        """
        types = self._integers(column, at)
        bits = _BITS.take(types)
        if len(types) == 1 and not bits[0]:
            count = self.count if at is None else len(at)
            return np.full(count, types[0] == _ONE, dtype=np.int64)
        # The first bytes are those of the value; nothing of another one is left.
        values = self._word(self._place(column, at)) >> np.minimum(64 - bits, 63)
        if bits.all():
            return values
        return np.where(bits == 0, types == _ONE, values)

    def _word(self, at: Ints) -> Ints:
        """Eight bytes from some positions on, the highest one first."""
        window: Ints = np.ndarray(
            (len(self._flat) - _WORD + 1,), dtype="<i8", buffer=self._flat, strides=(1,)
        )
        return window[at].byteswap(inplace=True)

    def begins(self, column: int, prefixes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """In which rows the first bytes of a text may be those of one of some prefixes.

        Only the first eight bytes are looked at.

        Raises:
            UnusualError: It is not known where the text begins.
        """
        found = np.zeros(self.count, dtype=bool)
        texts = np.flatnonzero(self.is_text(column))
        if len(texts):
            word = self._word(self._place(column, texts)).view(np.uint64)
            for prefix in prefixes:
                known = prefix.encode()[:_WORD]
                unused = np.uint64(8 * (_WORD - len(known)))
                found[texts] |= (word >> unused) == np.uint64(int.from_bytes(known, "big"))
        return found
