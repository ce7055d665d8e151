"""``python -m peer.cli`` is ``bitwrk``."""

from peer.cli import main

main()
