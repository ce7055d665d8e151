"""Real nodes trading for minutes, two of them killed and rejoining: are all books equal, and is no order filled twice?"""
