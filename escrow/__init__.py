"""Payment between two peers through a multisig on Bitcoin: scripts, channels, chain drivers, wallet."""
