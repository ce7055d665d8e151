"""Where the escrow meets the world: the chain, in process or over RPC, the wallet and the watcher. Trio."""
