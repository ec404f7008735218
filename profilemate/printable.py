"""Text from outside on its way to a terminal: the one place where it becomes printable.

Names in a recording, paths, what other programs said: any of them may hold an escape sequence that
renames the terminal's window, types on its behalf or hides the rest of a line. What moves a cursor,
turns a line around or is no character becomes visible here, as Python spells it; all else stays as
it is. Files for machines keep the true text.
"""

from __future__ import annotations

import os
import re
import shlex

# C0, DEL and C1; marks that hide or turn text around; ends of lines by other names; what is no
# character: halves of UTF-16 pairs, as which Python also holds bytes of a name that is no UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: object) -> str:
    """One line that a terminal shows as it stands, whatever the text holds.

    Args:
        text: A text, or what is one by `str`: a path, an error.
    """
    return _UNPRINTABLE.sub(_visible, str(text))


def printable_lines(text: str) -> str:
    """The same of a document, whose ends of lines stay."""
    return "\n".join(map(printable, text.split("\n")))


def shell_word(word: str | os.PathLike[str]) -> str:
    """A word of a command as a shell takes it, in printable characters.

    A path that looks like an option is led in by `./`.
    """
    text = os.fspath(word)
    if isinstance(word, os.PathLike) and text.startswith("-"):
        text = f"./{text}"
    if not _UNPRINTABLE.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{_UNPRINTABLE.sub(_bytes, escaped)}'"


def _visible(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _bytes(found: re.Match[str]) -> str:
    kept = "surrogateescape" if "\udc80" <= found[0] <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", kept))
