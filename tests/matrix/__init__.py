"""A kill at every boundary of every session, and a reorganisation under every step on the chain: generated, not chosen."""
