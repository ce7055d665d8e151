"""The worker process of Blender's keeper: python -m peer.workers.blender <setup>."""

import sys

from peer.workers.blender.keeper import run

if __name__ == "__main__":
    run(sys.argv[1])
