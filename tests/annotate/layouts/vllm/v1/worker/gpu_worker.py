class Worker:
    rank = 0
    parallel_config = None

    def execute_model(self, scheduler_output):
        return scheduler_output.total_num_scheduled_tokens
