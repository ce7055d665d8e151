"""The directory's policy: what to announce and to seek, and when. Pure."""
