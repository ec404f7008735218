"""What reads recordings afterwards, on any machine: no torch, no vLLM, no GPU."""
