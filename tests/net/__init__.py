"""Tests of peer.net with real sockets on loopback."""
