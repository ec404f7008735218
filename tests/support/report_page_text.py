"""A page as the text that a browser gets."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser's parser would make of it: scripts, links, attributes that load."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[str | None, str]] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.policy = ""
        self._in: str | None = None
        self._kind: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in = tag
        if tag == "script":
            self._kind = given.get("type")
            self.scripts.append((self._kind, ""))
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "meta" and given.get("http-equiv"):
            self.policy = given.get("content") or ""
        self.loads += [
            v or ""
            for k, v in attrs
            if k in ("src", "data", "poster") or (k == "href" and tag != "a")
        ]
        assert not [k for k in given if k.startswith("on")], "a handler in an attribute"

    def handle_data(self, data: str) -> None:
        if self._in == "script" and self.scripts:
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def hashes(self) -> set[str]:
        """Of the scripts that would run."""
        run = [text for kind, text in self.scripts if kind is None]
        return {
            "sha256-" + base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in run
        }
