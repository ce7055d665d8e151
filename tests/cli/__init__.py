"""Tests of the commands and of the reference documents."""
