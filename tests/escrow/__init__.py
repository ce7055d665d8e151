"""The escrow against the real kernel: scripts, channels with crashes and reorganisations, chain drivers, wallet."""
