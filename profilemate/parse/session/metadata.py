"""What `metadata.json` says, typed: the same for whoever writes it and whoever reads it.

`from_json` takes whatever JSON there is. A value is what its key is for or None (of a list or an
object, what does not fit is left out), and `unread` has a note for each key of which something
could not be used. A session of an older profilemate lacks keys: None, or empty, with a note too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from profilemate.parse.session.json_fields import Fields, Number
from profilemate.parse.session.metadata_parts import (
    Clock,
    Dropped,
    Hooks,
    Json,
    Process,
    Source,
    Unseen,
)
from profilemate.parse.session.warnings import SessionWarning, warnings_of
from profilemate.schema.live import RECORDING

OPTIONAL = ("files", "config", "unseen", "timeline", "warnings", "safe_csv", RECORDING)
"""Keys whose absence says nothing, or that have not always been there and can be made again."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Section 3 of the CSV layout: what was recorded, and what is missing, as facts.

    Attributes:
        start_time: When the recording began, ISO 8601.
        window_sec: Begin and end of the recording, s since its start; None where it is not known.
        graph_durations: What `duration_ms` of cuda_graph_timeline.csv is.
        coverage: See `coverage`; None for what the recording cannot tell.
        doubts: Sentences on what could not be attributed.
        config: Settings of the lead rank's engine by vLLM's names; what is not known is not there.
        unseen: Events that may be missing because a hook failed or was off, and why.
        dropped: None where the session does not say.
        duplicates: Messages that were in another recording too, by the name of the recording.
        notes: Sentences of readers on what was dropped, clipped or guessed.
        empty_files: Why a file has no rows, by its name.
        warnings: What whoever reads the figures must know, each once.
        timeline: Facts on timeline.pftrace, where there is one.
        files: Relative paths of all files that were written; None before they were.
        safe_csv: Texts in the tables that a spreadsheet would run have an apostrophe in front.
        recording: The run goes on, or was killed: there are no tables yet.
        unread: What of metadata.json could not be read, a sentence each. Not written.
    """

    session_id: str | None = None
    start_time: str | None = None
    output_dir: str | None = None
    cuda_graph_tracking: bool | None = None
    kv_cache_tracking: bool | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    window_sec: tuple[float, float] | None = None
    clock: Clock = field(default_factory=Clock)
    graph_durations: str | None = None
    coverage: Mapping[str, Number | None] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    processes: tuple[Process, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    config: Mapping[str, object] = field(default_factory=dict)
    unseen: tuple[Unseen, ...] = ()
    events: Mapping[str, int] = field(default_factory=dict)
    dropped: Dropped | None = None
    duplicates: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    empty_files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[SessionWarning, ...] = ()
    timeline: Mapping[str, object] | None = None
    files: tuple[str, ...] | None = None
    safe_csv: bool | None = None
    recording: bool | None = None
    unread: tuple[str, ...] = ()

    @property
    def start(self) -> datetime | None:
        """When the recording began."""
        return None if self.start_time is None else datetime.fromisoformat(self.start_time)

    @property
    def faults(self) -> int:
        """How often profilemate's own hooks failed, as far as the processes said."""
        return sum(process.faults or 0 for process in self.processes)

    def to_json(self) -> Json:
        """What is written; optional keys only where they say something."""
        told: Json = {
            "session_id": self.session_id,
            "start_time": self.start_time,
            "output_dir": self.output_dir,
            "cuda_graph_tracking": self.cuda_graph_tracking,
            "kv_cache_tracking": self.kv_cache_tracking,
            "versions": dict(self.versions),
            "sources": [source.to_json() for source in self.sources],
            "window_sec": None if self.window_sec is None else list(self.window_sec),
            "clock": self.clock.to_json(),
            "durations": {"cuda_graph_timeline": self.graph_durations},
            "coverage": dict(self.coverage),
            "doubts": list(self.doubts),
            "processes": [process.to_json() for process in self.processes],
            "hooks": self.hooks.to_json(),
            "events": dict(self.events),
            "dropped": None if self.dropped is None else self.dropped.to_json(),
            "duplicates": dict(self.duplicates),
            "notes": list(self.notes),
            "empty_files": dict(self.empty_files),
            "warnings": [{"id": w.id, "text": w.text} for w in self.warnings],
        }
        told |= {"config": dict(self.config)} if self.config else {}
        told |= {"unseen": [one.to_json() for one in self.unseen]} if self.unseen else {}
        told |= {} if self.timeline is None else {"timeline": dict(self.timeline)}
        told |= {} if self.files is None else {"files": list(self.files)}
        told |= {} if self.safe_csv is None else {"safe_csv": self.safe_csv}
        return told | ({} if self.recording is None else {RECORDING: self.recording})

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Metadata:
        """What a metadata.json says.

        Args:
            document: The object that it holds, whatever that holds.
        """
        notes: dict[str, None] = {}
        said = Fields(document, "", notes)
        found = cls(
            session_id=said.text("session_id"),
            start_time=said.moment("start_time"),
            output_dir=said.text("output_dir"),
            cuda_graph_tracking=said.truth("cuda_graph_tracking"),
            kv_cache_tracking=said.truth("kv_cache_tracking"),
            versions=said.words_or_none("versions"),
            sources=tuple(map(Source.read, said.parts("sources"))),
            window_sec=said.pair("window_sec"),
            clock=Clock.read(said.part("clock")),
            graph_durations=said.part("durations").text("cuda_graph_timeline"),
            coverage=said.numbers_or_none("coverage"),
            doubts=said.texts("doubts"),
            processes=tuple(map(Process.read, said.parts("processes"))),
            hooks=Hooks.read(said.part("hooks")),
            config=said.whole("config") or {},
            unseen=tuple(map(Unseen.read, said.parts("unseen"))),
            events=said.counts("events"),
            dropped=Dropped.read(said.part("dropped")),
            duplicates=said.counts("duplicates"),
            notes=said.texts("notes"),
            empty_files=said.words("empty_files"),
            timeline=said.whole("timeline"),
            files=said.texts("files") if "files" in document else None,
            safe_csv=said.truth("safe_csv"),
            recording=said.truth(RECORDING),
        )
        stored = document.get("warnings")
        parts = [(part.text("id"), part.text("text")) for part in said.parts("warnings")]
        warnings = tuple(SessionWarning(i or "note", t) for i, t in parts if t is not None)
        if not isinstance(stored, list) or len(warnings) < len(stored):
            warnings = warnings_of(
                found.notes, found.doubts, found.clock, found.dropped, found.faults
            )
        absent = [key for key in cls().to_json() if key not in (*document, *OPTIONAL)]
        if absent and not found.recording:
            keys = ", ".join(absent)
            notes[f"metadata.json has no {keys}: another version of profilemate wrote it"] = None
        damage = tuple(SessionWarning("metadata-unread", note) for note in notes)
        return replace(found, unread=tuple(notes), warnings=(*warnings, *damage))
