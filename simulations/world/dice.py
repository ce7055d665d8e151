"""Randomness by name: every source of chance has a generator of its own, made from the run's seed and a name.

So adding one thing to a scenario does not change the dice of another, and nothing depends on the process that runs it.
"""

from random import Random

from wire.digest import context, digest


def secret(seed: int, *names: object) -> bytes:
    """32 bytes for one purpose of one run."""
    return digest(context("simulated", "dice"), repr((seed, *names)).encode())


def dice(seed: int, *names: object) -> Random:
    """A generator for one purpose of one run."""
    return Random(int.from_bytes(secret(seed, *names), "big"))  # noqa: S311 - to be repeated is what it is for
