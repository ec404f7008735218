class Worker:
    rank = 0
    parallel_config = None

    def __init__(self, model_runner=None):
        self.model_runner = model_runner
        self.profiler = None

    def profile(
        self, is_start=True, profile_prefix=None, *, delay_iterations=None, max_iterations=None
    ):
        if self.profiler is None:
            raise RuntimeError("Profiling is not enabled.")
        if is_start:
            self.profiler.start(delay_iterations=delay_iterations, max_iterations=max_iterations)
        else:
            self.profiler.stop()

    def execute_model(self, scheduler_output):
        if self.profiler is not None:
            self.profiler.step()
        if self.model_runner is not None:
            return self.model_runner.execute_model(scheduler_output)
        return scheduler_output.total_num_scheduled_tokens

    def sample_tokens(self, grammar_output):
        return grammar_output

    def execute_dummy_batch(self):
        self.model_runner._dummy_run(1)
