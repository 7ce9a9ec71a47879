"""What the scenarios stand on: processes, clients, raw frames, bounded waits."""
