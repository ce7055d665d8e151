"""Tests of the house itself: its documents, its rooms, its manners."""
