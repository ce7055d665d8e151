"""Array models: gossip and Kademlia for a million nodes, in numpy, with the same definitions as the published measurements."""
