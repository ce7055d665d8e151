"""Tests of the journal, the home and the settings."""
