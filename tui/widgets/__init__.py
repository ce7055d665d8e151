"""Small parts that the screens are made of; none of them knows what a trade is."""
