"""Signed orders, their gossip and reconciliation, the call auction, and the agreement of two parties."""
