"""What the parts cost, each measured against a baseline in the same run: ratios hold where absolute times drift."""
