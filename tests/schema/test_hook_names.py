"""Parse asks schema what a hook tells of: every hook of annotate is known there, as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from profilemate import schema
from profilemate.annotate.hooks import HOOKS, gpu_timing
from profilemate.schema.hooks import GRAPH_FEEDS, HOOK_GROUPS, KV_FEEDS, Feed, feed_of

EVERY = (*HOOKS, *gpu_timing.HOOKS)


@pytest.mark.parametrize("hook", EVERY, ids=lambda hook: hook.name)
def test_every_hook_is_known(hook: Any) -> None:
    feed = feed_of(hook.name)
    assert feed is not None
    # A place that gives operations on blocks is where they are looked for, and so on: under
    # another name a recording would say that the KV cache was not tracked.
    if set(hook.emits) & {*schema.KV_OPS} - {"kv.usage"}:  # how full it is, said once a step
        assert feed is Feed.KV_BLOCKS
    if "kv.lookup" in hook.emits:
        assert feed is Feed.KV_REQUESTS
    if "graph.replay" in hook.emits:
        assert feed is Feed.GRAPHS
    if "graph.capture" in hook.emits:
        assert feed in (Feed.GRAPHS, Feed.GRAPH_OWNERS)
    if {"step", "step.end"} & set(hook.emits):
        assert feed in GRAPH_FEEDS
    if feed in KV_FEEDS:
        assert hook.group == "kv"


def test_groups_are_those_of_annotate() -> None:
    assert {hook.group for hook in EVERY} | {"custom"} == set(HOOK_GROUPS)


def test_what_each_place_is_for() -> None:
    known = {feed_of(hook.name) for hook in EVERY}
    assert known == set(Feed), "no feed without a hook"
    assert feed_of("dispatch (V2, ranks agreed)") is Feed.DISPATCH
    assert feed_of("CUDAGraphish.replay") is None
    assert feed_of("my_own") is None
    assert feed_of("") is None
