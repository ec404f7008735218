_is_profiler_enabled = False
