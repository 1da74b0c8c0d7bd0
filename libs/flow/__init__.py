"""Pure: batching, assignment, back-off, token bucket, bounded buffers. Time is an argument, chance too."""
