"""The dashboard: a node's market, trades, work and money on a terminal. A process of its own that only knows the local API."""
