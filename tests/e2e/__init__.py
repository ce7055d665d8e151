"""Whole nodes as separate processes on loopback, driven the way their owners would."""
