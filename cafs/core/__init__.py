"""Chunks, manifests and the two machines of a transfer; pure."""
