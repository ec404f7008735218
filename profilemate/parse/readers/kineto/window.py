"""The part of a trace's text that is at hand: bytes, and the characters of the first of them.

Whoever reads by bytes moves `next` on in `raw`; whoever reads by characters moves `at` on in
`text`. `rewind` goes from the second to the first, `more` from the first to the second.
"""

from __future__ import annotations

import codecs

from profilemate.parse.readers.kineto.inflate import DamagedError, Text

BLOCK = 1 << 22
"""Bytes that are read at a time."""

SMALL = 1 << 13
"""Bytes that are decoded at a time; fewer after `rewind`, which often comes again soon."""

_FIRST = 1 << 9


class Window:
    """What is at hand of a text.

    Attributes:
        raw: Bytes.
        next: Index of the first byte in `raw` that is not in `text`, nor before it.
        text: Characters.
        at: Index in `text` of the first character that was not read.
        read: Bytes of the file that were read so far, after unpacking.
        damage: Why nothing can be unpacked from here on, None if that is not so.
    """

    def __init__(self, file: Text) -> None:
        self._file = file
        # What is no UTF-8 can be turned back into its bytes.
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.raw, self.next = b"", 0
        self.text, self.at = "", 0
        self._size = SMALL  # bytes that are decoded next, at least
        self.read = 0
        self.damage: str | None = None
        self._file_ended = self._text_ended = False

    def _block(self) -> bytes:
        """The next bytes of the file; none at its end."""
        if self._file_ended:
            return b""
        try:
            # `read` would lose what it has already unpacked when it meets the damage.
            block = self._file.read1(BLOCK)
        except DamagedError as e:
            # The good part before the damage was returned by the calls before this one.
            self.damage, block = str(e), b""
        self.read += len(block)
        self._file_ended = not block
        return block

    def more(self) -> bool:
        """Decode on; whether there was anything.

        As many bytes as there are unread characters, at least: who begins anew with all of them
        each time has decoded no more than twice the text in the end.
        """
        if self._text_ended:
            return False
        size, parts = max(self._size, len(self.text) - self.at), []
        self._size = min(2 * self._size, SMALL)
        while size:
            if self.next == len(self.raw):
                block = self._block()
                if not block:
                    break
                self.raw, self.next = block, 0
            part = self.raw[self.next : self.next + size]
            self.next, size = self.next + len(part), size - len(part)
            parts.append(part)
        self._text_ended = not parts
        self.text = self.text[self.at :] + self._utf8.decode(b"".join(parts), final=not parts)
        self.at = 0
        return True

    def rewind(self) -> None:
        """Turn the characters that were not read into bytes again: `text` is empty then."""
        unread = self.text[self.at :].encode("utf-8", "surrogateescape") + self._utf8.getstate()[0]
        begin = self.next - len(unread)
        if begin >= 0:
            self.next = begin
        else:  # they begin in a block before this one
            self.raw, self.next = unread + self.raw[self.next :], 0
        self.text, self.at, self._text_ended = "", 0, False
        self._size = min(_FIRST, SMALL)
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")

    def shrink(self) -> None:
        """Rewind if a long value has left many characters: each event after it would move them."""
        if len(self.text) > 4 * SMALL:
            self.rewind()

    def widen(self) -> bool:
        """Have twice as many unread bytes at least, after `rewind`; whether there were any more."""
        rest = self.raw[self.next :]
        parts, size = [rest], 0
        while size < max(SMALL, len(rest)) and (block := self._block()):
            parts.append(block)
            size += len(block)
        self.raw, self.next = b"".join(parts), 0
        return size > 0
