"""The cellar: names, bytes, signatures, bounds and ports. Pure; every other room stands on it and it imports none of them."""
