"""What tables take: frames of events, the log of block operations, GPU work, a trace per rank."""
