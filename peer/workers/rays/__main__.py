"""The worker process of ``rays``: python -m peer.workers.rays."""

from peer.workers.rays.tracer import compute
from peer.workers.serving import main

if __name__ == "__main__":
    main(compute)
