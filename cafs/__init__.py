"""Content-addressed storage and its transfer: chunks, manifests, a store on disk, verified fetching."""
