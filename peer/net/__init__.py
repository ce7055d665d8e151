"""The network: hosts, streams, the courier and the DHT. The only door to libp2p."""
