"""The command ``bitwrk``. What runs a node imports it only then; everything else talks to a running one."""

from peer.cli.app import main

__all__ = ["main"]
