"""The witness: block pools simulated block by block, with nothing but dicts and loops.

It does what vLLM's BlockPool and KVCacheMetricsCollector do, says the events that our hooks would
say, and keeps the truth on the side: every life of every block, what the collector would report,
usage, counts. It knows nothing of pandas and shares no code with the tables.

Where a recording starts in the middle, the truth is cut to what such a recording can know: lives
that began before are told from their first recorded event on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from frames import At, at


@dataclass
class Life:
    """A life of a block, as far as the recording can know it."""

    key: tuple[int, int, int]  # process, pool, block
    group: int | None = None
    request: str | None = None
    allocated: int | None = None
    first_access: int | None = None
    last_access: int | None = None
    freed: int | None = None
    ended: int | None = None
    ended_by: str = "open"
    active: int = 0
    accesses: int = 0
    content: bool = False
    after_connector: bool = False
    events: int = 0  # recorded ones
    using_since: int | None = None

    @property
    def began_before(self) -> bool:
        return self.allocated is None and not self.after_connector

    @property
    def cached(self) -> bool | None:
        if not self.content and self.began_before and self.ended_by != "reused":
            return None
        return self.content


@dataclass(eq=False)
class Block:
    id: int
    ref: int = 0
    hashed: bool = False
    life: Life | None = None
    seen: bool = False  # in the recording
    # vLLM's BlockMetricsState: birth, last access, and whether the recording saw the birth
    metrics: tuple[int, int, bool] | None = None


@dataclass
class Pool:
    pid: int
    number: int
    size: int
    caching: bool
    medium: str | None = None
    blocks: dict[int, Block] = field(default_factory=dict)
    free: list[Block] = field(default_factory=list)
    shows_caching: bool = False  # by a recorded operation
    # the truth:
    lives: list[Life] = field(default_factory=list)
    collected: list[tuple[int, int, int]] = field(default_factory=list)  # end, lifetime, idle
    evictions: list[tuple[int, int | None, int | None]] = field(default_factory=list)
    usage: list[tuple[int, int]] = field(default_factory=list)  # after each operation
    step_usage: list[tuple[int, int]] = field(default_factory=list)
    since_step: tuple[int, int] | None = None
    allocations: int = 0
    deallocations: int = 0

    def __post_init__(self) -> None:
        self.blocks = {i: Block(i) for i in range(1, self.size + 1)}  # 0 is the null block
        self.free = list(self.blocks.values())

    @property
    def used(self) -> int:
        return self.size - len(self.free)

    @property
    def get_usage(self) -> float:
        """BlockPool.get_usage to the letter."""
        return 1.0 - (len(self.free) / self.size)


class World:
    """Some pools, one clock, and a recorder that may be switched on late."""

    def __init__(self, pools: list[Pool], *, recording: bool) -> None:
        self.pools = pools
        self.now = 10
        self.recording = recording
        self.events: list[At] = []
        self.step_begin: dict[int, int] = {}
        self.steps: dict[int, int] = {}  # recorded ones, per process

    # ------------------------------------------------------------------ recording

    def start_recording(self) -> None:
        self.recording = True
        for pool in self.pools:
            for block in pool.blocks.values():
                block.seen = False
                if block.life is not None:
                    block.life = Life(block.life.key)  # of which nothing is known
                if block.metrics is not None:
                    block.metrics = (*block.metrics[:2], False)

    def say(self, ts: int, kind: str, pool: Pool, **values: Any) -> None:
        if not self.recording:
            return
        if kind in ("kv.cache", "kv.touch", "kv.evict", "kv.move"):
            pool.shows_caching = True
        pool.usage.append((ts, pool.used))
        pool.since_step = (ts, pool.used)
        values |= {"pool": pool.number, "used": pool.used}
        self.events.append(at(ts, kind, pid=pool.pid, dur=1, **values))

    def note(self, block: Block, ts: int) -> Life | None:
        """An event about a block: count its time in use, from here on or up to here."""
        life = block.life
        if not self.recording or life is None:
            return None
        block.seen = True
        life.events += 1
        if block.ref > 0 and life.using_since is None:
            life.using_since = ts
        if block.ref == 0 and life.using_since is not None:
            life.active += ts - life.using_since
            life.using_since = None
        return life

    def end(self, pool: Pool, block: Block, ts: int | None, how: str) -> None:
        life, block.life = block.life, None
        if life is None or not self.recording:
            return
        if life.using_since is not None:
            life.active += (self.now if ts is None else ts) - life.using_since
        life.ended, life.ended_by = ts, how
        if life.events:
            pool.lives.append(life)

    # ------------------------------------------------------------------ vLLM's collector

    def collect(self, pool: Pool, block: Block, ts: int) -> None:
        """KVCacheMetricsCollector.on_block_evicted."""
        if block.metrics is not None:
            birth, access, recorded = block.metrics
            if recorded:
                pool.collected.append((ts, ts - birth, ts - access))
            block.metrics = None

    def evict(self, pool: Pool, block: Block, ts: int, how: str) -> bool:
        """BlockPool._maybe_evict_cached_block."""
        self.collect(pool, block, ts)
        if not block.hashed:
            return False
        block.hashed = False
        if self.recording:
            block.life = block.life or Life((pool.pid, pool.number, block.id))
            life = block.life
            life.events += 1
            life.content = True
            last = life.last_access
            pool.evictions.append(
                (
                    ts,
                    None if life.allocated is None else ts - life.allocated,
                    None if last is None else ts - last,
                )
            )
        self.end(pool, block, ts, how)
        return True

    # ------------------------------------------------------------------ operations

    def alloc(self, pool: Pool, count: int, request: str) -> None:
        if count == 0:
            return
        ts = self.now
        blocks, pool.free = pool.free[:count], pool.free[count:]
        # The reading of an eviction's clock may be later than that of the call it happens in.
        evicted = [
            b.id
            for b in blocks
            if pool.caching and self.evict(pool, b, ts + 1 if b.hashed else ts, "evicted")
        ]
        if evicted:
            self.say(ts + 1, "kv.evict", pool, ids=tuple(evicted), req=request, cause="alloc")
        for block in blocks:
            self.end(pool, block, ts, "reused")
            block.ref = 1
            block.metrics = (ts, ts, self.recording)
            block.life = Life((pool.pid, pool.number, block.id), request=request)
            life = self.note(block, ts)
            if life is not None:
                life.allocated = life.last_access = ts
        pool.allocations += count if self.recording else 0
        self.say(ts, "kv.alloc", pool, ids=tuple(b.id for b in blocks), req=request)
        self.now += 1

    def touch(self, pool: Pool, blocks: list[Block], *, hit: bool) -> None:
        revived = [b for b in blocks if b.ref == 0]
        for block in blocks:
            was_free = block.ref == 0
            if was_free:
                pool.free.remove(block)
            block.ref += 1
            if block.metrics is not None:
                block.metrics = (block.metrics[0], self.now, block.metrics[2])
            life = self.note(block, self.now)
            if life is not None:
                life.accesses += 1
                life.first_access = self.now if life.first_access is None else life.first_access
                life.last_access = self.now
                life.content |= hit or was_free
        subset = None if len(revived) == len(blocks) else tuple(b.id for b in revived)
        ids = tuple(b.id for b in blocks)
        self.say(self.now, "kv.touch", pool, ids=ids, revived=subset, hit=hit)

    def free_blocks(self, pool: Pool, blocks: list[Block]) -> None:
        freed = []
        for block in blocks:
            block.ref -= 1
            life = self.note(block, self.now)
            if block.ref == 0:
                freed.append(block)
                if life is not None:
                    life.freed = self.now
        # Blocks without content are reused first.
        pool.free = [b for b in freed if not b.hashed] + pool.free + [b for b in freed if b.hashed]
        pool.deallocations += len(freed) if self.recording else 0
        subset = None if len(freed) == len(blocks) else tuple(b.id for b in freed)
        self.say(self.now, "kv.free", pool, ids=tuple(b.id for b in blocks), freed=subset)

    def cache(self, pool: Pool, blocks: list[Block], group: int, *, partial: bool) -> None:
        for block in blocks:
            block.hashed = True
            life = self.note(block, self.now)
            if life is not None:
                life.content = True
                life.group = group if life.group is None else life.group
        ids = tuple(b.id for b in blocks)
        said = {"group": group or None, "partial": partial or None}
        self.say(self.now, "kv.cache", pool, ids=ids, **said)

    def move(self, pool: Pool, src: Block, dst: Block) -> None:
        src.hashed, dst.hashed = False, True
        for block in (src, dst):
            life = self.note(block, self.now)
            if life is not None:
                life.content = True
        self.say(self.now, "kv.move", pool, src=(src.id,), dst=(dst.id,))

    def evict_blocks(self, pool: Pool, blocks: list[Block]) -> None:
        """A connector invalidates content; of a block in use a life without birth goes on."""
        for block in blocks:
            seen = block.seen
            self.evict(pool, block, self.now, "connector")
            if block.ref > 0:
                block.life = Life((pool.pid, pool.number, block.id), after_connector=True)
                # Only a block that was seen before is known to be in use.
                if seen and self.recording:
                    block.life.events = 1
                    block.life.using_since = self.now
            block.seen = self.recording
        ids = tuple(b.id for b in blocks)
        self.say(self.now, "kv.evict", pool, ids=ids, cause="connector")

    def reset(self, pool: Pool) -> None:
        done = pool.used == 0
        for block in pool.blocks.values() if done else ():
            block.hashed = False
            block.metrics = None
            self.end(pool, block, self.now, "reset")
        self.say(self.now, "kv.reset", pool, ok=done)

    def pin(self, block: Block) -> None:
        """Copy-on-write raises a reference count directly: no event."""
        block.ref += 1

    def steal(self, pool: Pool) -> None:
        """Attention sinks take blocks straight from the queue; a later event says the usage."""
        plain = [b for b in pool.free if not b.hashed]
        if plain:
            pool.free.remove(plain[0])
            del pool.blocks[plain[0].id]
            if plain[0].life is not None:
                self.end(pool, plain[0], None, "open")
            self.say(self.now, "kv.usage", pool)

    # ------------------------------------------------------------------ steps

    def open_step(self, pid: int) -> None:
        self.step_begin.setdefault(pid, self.now)

    def close_step(self, pid: int) -> None:
        begin, end = self.step_begin.pop(pid, self.now), self.now
        self.now += 1  # what has the same time stamp as the end is taken to lie in the step
        if not self.recording:
            return
        self.steps[pid] = self.steps.get(pid, 0) + 1
        self.events.append(at(begin, "sched.step", pid=pid, dur=end - begin, step=self.steps[pid]))
        for pool in self.pools:
            if pool.pid == pid:
                self._take_usage(pool)

    def _take_usage(self, pool: Pool) -> None:
        if pool.since_step is not None:
            if not pool.step_usage or pool.step_usage[-1][1] != pool.since_step[1]:
                pool.step_usage.append(pool.since_step)
            pool.since_step = None

    def finish(self) -> None:
        """The recording ends."""
        for pool in self.pools:
            for block in pool.blocks.values():
                if block.life is not None:
                    self.end(pool, block, None, "open")
            self._take_usage(pool)
            if pool.pid not in self.steps:  # then each operation is a step
                pool.step_usage = [
                    sample
                    for i, sample in enumerate(pool.usage)
                    if i == 0 or sample[1] != pool.usage[i - 1][1]
                ]
