"""Integers in few bytes: arrays, lists of block ids, packed batches, what is put aside.

Knows nothing of GPUs, graphs or KV caches.
"""
