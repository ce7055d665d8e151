"""The cellar: keys, accounts."""
