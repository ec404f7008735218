class EngineCore:
    def __init__(self, vllm_config, scheduler, model_executor):
        self.vllm_config = vllm_config
        self.scheduler = scheduler
        self.model_executor = model_executor

    def profile(
        self, is_start=True, profile_prefix=None, delay_iterations=None, max_iterations=None
    ):
        self.model_executor.profile(
            is_start,
            profile_prefix,
            delay_iterations=delay_iterations,
            max_iterations=max_iterations,
        )
