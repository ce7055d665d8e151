"""The seller as a service: mandates, workers of others, figures, events, draining, restarts."""
