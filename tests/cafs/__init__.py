"""Content: chunks, manifests, the transfer machines, the store and the service."""
