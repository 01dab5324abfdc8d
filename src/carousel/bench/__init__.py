"""Timed comparisons with other LSTMs: equality first, then alternating runs in one process, losses shown."""
