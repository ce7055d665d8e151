"""The order book's driver on streams; it decides nothing."""
