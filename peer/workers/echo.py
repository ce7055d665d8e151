"""The worker of tests and first steps: its result is its work.

python -m peer.workers.echo
"""

from peer.workers.serving import main


def compute(work: bytes) -> bytes:
    """The same bytes."""
    return work


if __name__ == "__main__":
    main(compute)
