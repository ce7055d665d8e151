"""``python -m tests.brute``: walk all books and say how many there were."""

import multiprocessing
import sys
import time

from tests.brute.books import check, plain_books, refusing_books

WALKS = (
    ("different owners, prices 0..3, quantities 1..2, up to 8 orders: quantity and price by brute force", plain_books, 8),
    ("two owners, prices 0..2, quantities 1..2, up to 5 orders: equal to the literal rules", refusing_books, 5),
)


def main() -> int:
    """Print one line per walk; a book that fails ends it with the book."""
    with multiprocessing.Pool() as pool:
        for name, books, most in WALKS:
            began = time.monotonic()
            walked = sum(pool.imap_unordered(check, books(most), chunksize=500))
            print(f"{walked:,} books ({name}) in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
