from types import SimpleNamespace

from vllm.v1.core.kv_cache_manager import KVCacheManager


class Scheduler:
    def __init__(self, vllm_config=None, kv_cache_config=None, connector=None):
        if vllm_config is not None:
            self.vllm_config = vllm_config
            self.kv_cache_config = kv_cache_config
        # A connector may make pools of its own, and does so first.
        self.connector = None if connector is None else connector()
        self.kv_cache_manager = KVCacheManager()
        self.running, self.waiting, self.requests = [], [], {}
        self.parallel_config = SimpleNamespace(data_parallel_rank=0)

    def add_request(self, request):
        self.waiting.append(request)

    def schedule(self):
        new = []
        for request in list(self.waiting):
            if self.kv_cache_manager.allocate_slots(request, request.num_prompt_tokens) is None:
                break
            self.waiting.remove(request)
            self.running.append(request)
            new.append(request)
        return SimpleNamespace(
            num_scheduled_tokens={r.request_id: 1 for r in self.running},
            total_num_scheduled_tokens=len(self.running),
            scheduled_new_reqs=new,
            scheduled_cached_reqs=SimpleNamespace(req_ids=[], num_output_tokens=[]),
            preempted_req_ids=set(),
        )

    def update_from_output(self, scheduler_output, model_runner_output=None):
        for request in list(self.running):
            self.running.remove(request)
            self._free_request(request)

    def _preempt_request(self, request, timestamp):
        self.kv_cache_manager.free(request)

    def _free_request(self, request):
        self.kv_cache_manager.free(request)
