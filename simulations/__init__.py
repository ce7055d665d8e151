"""The simulator: the product's own cores in virtual time, array models for a million nodes, and a laboratory around both."""
