"""The five screens: each shows one side of the node and offers what can be done about it."""
