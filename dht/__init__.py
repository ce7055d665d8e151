"""Who trades an article: a directory policy over a Kademlia DHT. ``core`` is pure, ``shell`` talks to the network."""
