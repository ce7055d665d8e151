"""Workers: limits that are really hit, and pictures that are the same to the bit."""
