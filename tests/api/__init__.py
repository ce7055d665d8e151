"""Tests of the local API, served for real on a loopback port."""
