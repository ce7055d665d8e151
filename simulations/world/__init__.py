"""Virtual time: real cores, simulated roads, chain, workers and people. No sockets, no clock, nothing that differs between
runs.
"""
