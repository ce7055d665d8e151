"""Mutation testing: small mistakes are put into the order book's cores one at a time, and the tests have to notice each.

A tool of our own, because a run of any of these test files costs seconds of imports and the known tools pay that for every
mutant or need a copy of the tree. Here one process imports and collects once; for each mutant it forks, puts the changed code
into the functions that are already loaded, and runs the tests that reach the changed lines until the first fails.
"""
