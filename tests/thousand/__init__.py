"""A thousand units between two processes through one escrow, and what that cost on the chain."""
