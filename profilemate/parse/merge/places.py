"""Which rank each process is of, by the recordings it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from profilemate.parse.merge.process_identity import Processes
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.recording.places import Place, labelled, place_in_label


@dataclass(slots=True)
class Placed:
    """What recordings say of the processes in them, by what the trace calls those.

    Attributes:
        places: Rank of each that a recording names.
        aliases: What a merged file calls each whose number there is not its own.
        sources: Recordings that each of them has activity in.
    """

    places: dict[int, Place] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    sources: dict[int, list[int]] = field(default_factory=dict)


def place_processes(
    pids_of: Mapping[int, set[int]], processes: Processes, infos: Sequence[SourceInfo]
) -> Placed:
    """Find out which rank each process is of, as far as its recordings say.

    What a process says of itself comes before this. The name of a file is of one process: where a
    file holds several, only the labels that it has for them count.

    Args:
        pids_of: The processes with activity in each recording, as that calls them.
        processes: What the trace calls them.
        infos: The recordings.
    """
    placed = Placed()
    for recording, active in sorted(pids_of.items()):
        info = infos[recording]
        spoke = {pid for number, pid in processes.key if number == recording}
        pids = active | spoke
        for pid in sorted(pids):
            key = processes.key.get((recording, pid), pid)
            if pid in active:
                placed.sources.setdefault(key, []).append(recording)
            label = labelled(info.labels.get(pid))
            if label is not None:
                place = place_in_label(label[0])
                if label[1] != key:
                    placed.aliases[key] = label[1]
            else:
                place = info.place if len(pids) == 1 else None
            if place is not None:
                placed.places.setdefault(key, place)
    return placed
