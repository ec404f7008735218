class Worker:
    rank = 0
    parallel_config = None

    def __init__(self, model_runner=None):
        self.model_runner = model_runner

    def execute_model(self, scheduler_output):
        if self.model_runner is not None:
            return self.model_runner.execute_model(scheduler_output)
        return scheduler_output.total_num_scheduled_tokens

    def execute_dummy_batch(self):
        self.model_runner._dummy_run(1)
