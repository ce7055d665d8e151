"""The auction on every book there is below a size; ``make brute`` runs it, because it takes minutes."""
