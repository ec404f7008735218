"""A block pool with the methods that vLLM's has. It proves order and layout, not that vLLM works:
that is what the end-to-end tests are for."""


class Block:
    def __init__(self, block_id, pool=None):
        self.block_id = block_id
        self.ref_cnt = 0
        self.block_hash = None
        self.is_null = False
        self.pool = pool


class BlockPool:
    def __init__(self, num_gpu_blocks, enable_caching=True, hash_block_size=16):
        self.num_gpu_blocks = num_gpu_blocks
        self.enable_caching = enable_caching
        self.hash_block_size = hash_block_size
        self.blocks = [Block(i, self) for i in range(num_gpu_blocks)]
        self.free = self.blocks[1:]
        self.null_block = self.blocks[0]
        self.null_block.is_null = True

    def get_num_free_blocks(self):
        return len(self.free)

    def get_new_blocks(self, num_blocks):
        if num_blocks > len(self.free):
            raise ValueError(f"Cannot get {num_blocks} free blocks from the pool")
        blocks, self.free = self.free[:num_blocks], self.free[num_blocks:]
        for block in blocks:
            self._maybe_evict_cached_block(block)
            block.ref_cnt += 1
        return blocks

    def _maybe_evict_cached_block(self, block):
        had, block.block_hash = block.block_hash, None
        return had is not None

    def evict_blocks(self, block_ids):
        for block_id in block_ids:
            self._maybe_evict_cached_block(self.blocks[block_id])

    def touch(self, blocks):
        for block in blocks:
            if block.ref_cnt == 0 and not block.is_null:
                self.free.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks):
        others = {}
        for block in ordered_blocks:
            if block.pool is not self:
                others.setdefault(block.pool, []).append(block)
                continue
            block.ref_cnt -= 1
            if block.ref_cnt == 0 and not block.is_null:
                self.free.append(block)
        for pool, blocks in others.items():
            pool.free_blocks(blocks)

    def cache_full_blocks(
        self,
        request,
        blocks,
        num_cached_blocks,
        num_full_blocks,
        block_size,
        kv_cache_group_id,
        block_mask=None,
    ):
        for i, block in enumerate(blocks[num_cached_blocks:num_full_blocks]):
            if not block.is_null and (block_mask is None or block_mask[i]):
                block.block_hash = (request.request_id, num_cached_blocks + i)

    def cache_partial_block(self, request, block, num_tokens, kv_cache_group_id, block_size):
        if block.is_null:
            return None
        block.block_hash = (request.request_id, num_tokens)
        return block.block_hash

    def move_block_hashes(self, src_block, dst_block):
        src_block.block_hash, dst_block.block_hash = None, src_block.block_hash

    def reset_prefix_cache(self):
        if self.num_gpu_blocks - len(self.free) != 1:
            return False
        for block in self.blocks:
            block.block_hash = None
        return True
