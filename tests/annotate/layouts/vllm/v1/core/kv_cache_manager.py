from vllm.v1.core.block_pool import BlockPool


class KVCacheManager:
    enable_caching = True

    def __init__(self, num_blocks=10):
        self.block_pool = BlockPool(num_blocks)
        self.held = {}

    def get_computed_blocks(self, request):
        return [], 0, 0

    def record_prefix_cache_stats(self, request, num_hits):
        pass

    def allocate_slots(self, request, num_new_tokens, new_computed_blocks=(), *, reserve=0):
        need = -(-num_new_tokens // 16)
        if need > self.block_pool.get_num_free_blocks() - reserve:
            return None
        if new_computed_blocks:
            self.block_pool.touch(new_computed_blocks)
        blocks = self.block_pool.get_new_blocks(need)
        self.held.setdefault(request.request_id, []).extend([*new_computed_blocks, *blocks])
        return blocks

    def free(self, request):
        self.block_pool.free_blocks(reversed(self.held.pop(request.request_id, [])))

    def pop_blocks_for_free(self, request):
        return self.held.pop(request.request_id, [])
