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
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.activity import Ints

Bytes = npt.NDArray[np.uint8]

_MAGIC = b"SQLite format 3\x00"
_HEADER = 100  # bytes of the file's header
_INTERIOR, _LEAF = 5, 13  # kinds of pages of a table
_PAGES = (1 << 12, 1 << 15)  # sizes of pages that are read; nsys writes the smallest of these
_LOCAL = 480  # bytes of a row that always lie on its page, whatever their size
_LEVELS = 12  # of a tree; SQLite itself stops at 20
_GAP = 8  # pages that are rather read in vain than skipped
_PIECES = 500  # that are read at once; Linux takes 1024
_SLACK = 256  # bytes behind the last page, so that a window may begin anywhere
_WORD = 8
_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_BAD = 0x80  # the size that stands for a type which is no number; no sum of sizes has this bit
_NULL, _INT64, _FLOAT, _ZERO, _ONE, _TEXT = 0, 6, 7, 8, 9, 12  # types of values


def _sizes() -> npt.NDArray[np.uint16]:
    """Bytes that a value takes by its type, for two types at once."""
    size = np.full(256, _BAD, dtype=np.uint16)
    size[: _ONE + 1] = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
    both = np.arange(1 << 16)
    found: npt.NDArray[np.uint16] = size[both & 255] | size[both >> 8] << 8
    return found


_SIZES = _sizes()
_SHIFT = np.array([63, 56, 48, 40, 32, 16, 0, 0, 63, 63], dtype=np.int64)  # by type
_SIZE = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)


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
        step = np.diff(numbers)
        cuts = (np.flatnonzero(step != 1) + 1).tolist()
        pieces: list[Any] = []  # what follows each other in the file
        at, held = int(numbers[0]) if len(numbers) else 2, 0
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


class Rows:
    """Rows of some leaves of a table, in order.

    A row is its length, its rowid (both of one to nine bytes), a header and the values. The header
    is its own length, and the type of each value: one byte, unless it is a long text.

    Attributes:
        count: How many.
    """

    def __init__(self, flat: Bytes, size: int, pages: int, width: int, upto: int) -> None:
        self._flat, self._width = flat, width
        _require((flat[np.arange(pages) * size] == _LEAF).all())
        _require(8 * upto + width + 2 <= _LOCAL)
        cell, counts = _cells(flat, size, pages, head=8)
        self.count = len(cell)
        self._rowid = self._after(cell)
        self._head = self._after_rowid(counts)
        self._words = -(-(1 + upto) // _WORD)
        window: npt.NDArray[Any] = np.ndarray(
            (len(flat) - _SLACK + 1,),
            dtype=f"V{_WORD * self._words}",
            buffer=flat,
            strides=(1,),
        )
        self._types: Bytes = (
            window[self._head].view(np.uint8).reshape(self.count, _WORD * self._words)
        )
        length = self._types[:, 0].copy()
        # Shorter: a row from before a column was added. Longer: a type of more than one byte.
        _require(bool(((length > width) & (length < 128)).all()))
        self._values = self._head + length
        self._types[:, 0] = 0
        self._sum()

    def _after(self, at: Ints) -> Ints:
        """Where numbers of a variable length that begin at some positions end."""
        more = self._flat[at] >= 128
        at = at + 1
        while more.any():
            at += more
            more &= self._flat[at - 1] >= 128
            _require(len(at) == 0 or int(at.max()) < len(self._flat) - _SLACK)
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

    def _sum(self) -> None:
        """Add up what the values take: of each column where it begins, behind the header."""
        sizes = _SIZES.take(self._types.view(np.uint16)).view(np.uint64)
        self._bad = sizes & _HIGH
        self._begin = sizes * _ONES  # byte n of a word: the sum of its bytes up to n
        self._before = np.zeros((self.count, self._words), dtype=np.int64)
        for word in range(1, self._words):
            total = (self._begin[:, word - 1] >> np.uint64(56)).astype(np.int64)
            self._before[:, word] = self._before[:, word - 1] + total

    def rowids(self, at: Ints) -> Ints:
        """The rowids of some rows.

        Raises:
            UnusualError: One of them is negative.
        """
        place, last = self._rowid[at], self._head[at] - 1
        _require(len(at) == 0 or int((last - place).max()) < 8)
        found = np.zeros(len(at), dtype=np.int64)
        while len(at):
            inside = place <= last
            byte = self._flat[place].astype(np.int64) & 127
            found = np.where(inside, (found << 7) | byte, found)
            if not inside.any():
                break
            place = place + 1
        return found

    def is_null(self, column: int, at: Ints | None = None) -> npt.NDArray[np.bool_]:
        """Of which rows a column is NULL."""
        found: npt.NDArray[np.bool_] = self._type(column, at) == _NULL
        return found

    def is_text(self, column: int) -> npt.NDArray[np.bool_]:
        """Of which rows a column is a text, or bytes."""
        found: npt.NDArray[np.bool_] = self._type(column, None) >= _TEXT
        return found

    def _type(self, column: int, at: Ints | None) -> Bytes:
        types = self._types[:, column + 1]
        return types if at is None else types[at]

    def _place(self, column: int, at: Ints | None) -> Ints:
        """Where the value of a column begins, of each of some rows.

        Raises:
            UnusualError: One of the values before it is a text, or is not known.
        """
        rows: Any = slice(None) if at is None else at
        word, byte = divmod(column, _WORD)  # the types before it lie in bytes 1 to `column`
        up_to = _HIGH >> np.uint64(8 * (_WORD - 1 - byte))
        bad = (self._bad[rows, word] & up_to).any() or self._bad[rows, :word].any()
        _require(not bad)
        begin = (self._begin[rows, word] >> np.uint64(8 * byte)).astype(np.uint8)
        found: Ints = self._values[rows] + begin
        return found + self._before[rows, word] if word else found

    def column(self, column: int, at: Ints | None = None) -> Ints:
        """The integers in a column, 0 for NULL; of some rows or of all.

        Raises:
            UnusualError: One of them is not an integer.
        """
        types = self._type(column, at)
        if not len(types):
            return np.empty(0, dtype=np.int64)
        place = self._place(column, at)
        same = int(types[0])
        if (types == same).all():
            _require(same <= _ONE and same != _FLOAT)
            if not _SIZE[same]:
                return np.full(len(types), same == _ONE, dtype=np.int64)
            return self._signed(place) >> (64 - 8 * _SIZE[same])
        _require(int(types.max()) <= _ONE and not (types == _FLOAT).any())
        values = self._signed(place) >> _SHIFT.take(types)
        simple = (types == _NULL) | (types >= _ZERO)
        return np.where(simple, types == _ONE, values) if simple.any() else values

    def check(self, column: int) -> None:
        """Make sure that `column` will give the integers of any rows.

        Raises:
            UnusualError: It would not.
        """
        types = self._types[:, column + 1]
        _require(int(types.max(initial=0)) <= _ONE and not (types == _FLOAT).any())
        self._place(column, np.empty(0, dtype=np.int64) if not self._bad.any() else None)

    def _signed(self, at: Ints) -> Ints:
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
            word = self._signed(self._place(column, texts)).view(np.uint64)
            for prefix in prefixes:
                known = prefix.encode()[:_WORD]
                unused = np.uint64(8 * (_WORD - len(known)))
                found[texts] |= (word >> unused) == np.uint64(int.from_bytes(known, "big"))
        return found
