"""What the local API needs from a node, and how a node's refusals read in HTTP.

The API knows nothing of markets, channels or stores; it asks a ``NodeService`` and translates.
"""

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from peer.api.wallet import WalletService
from wire.errors import BitwrkError, LocalFault, Refused

Json = dict[str, Any]


class NodeService(Protocol):
    """The node as its owner's programs see it. All answers are made of plain JSON values."""

    @property
    def wallet(self) -> WalletService:
        """The account's coins."""
        ...

    async def put(self, body: AsyncIterator[bytes]) -> str:
        """Store what ``body`` yields and return its content id in hex. An exception raised by ``body`` is passed on."""
        ...

    async def buy(
        self, article: str, work: str, *, bid_msat: int | None, wait_s: float, mandated: bool, once: bool = False
    ) -> str:
        """Have ``work`` (a content id) done and return the content id of the result.

        Without a bid only a free book is tried, unless it is ``mandated`` and there is a mandate; ``wait_s`` bounds the search
        for a seller. ``once``: it is not bought again after money was locked for it. Cancelled when the asker hangs up. Raises
        ``Refused``, whose code is looked up in ``STATUS``.
        """
        ...

    async def place_buy(self, article: str, work: str, *, bid_msat: int | None, wait_s: float) -> str:
        """Begin to have ``work`` done and return the id of the order. Raises ``Refused``."""
        ...

    async def place_sell(self, article: str, worker: str, *, ask_msat: int, slots: int) -> str:
        """Sell units of ``article`` done by ``worker`` and return the id of the order. Raises ``Refused``."""
        ...

    async def cancel_order(self, order: str) -> None:
        """Withdraw an order by its id. Raises ``Refused``."""
        ...

    async def grant(self, side: str, article: str, *, price_msat: int, trades: int | None, minutes: int | None) -> Json:
        """Keep a mandate and return its line, once it is durable. Raises ``Refused``."""
        ...

    async def revoke(self, mandate: str) -> None:
        """End a mandate by its id. Raises ``Refused``."""
        ...

    async def register_worker(self, name: str, article: str, push_url: str) -> Json:
        """Take work for a worker at ``push_url``, or learn that it is idle again; returns its line. Raises ``Refused``."""
        ...

    async def unregister_worker(self, name: str) -> None:
        """Forget a worker that was registered. Raises ``Refused``."""
        ...

    async def open_file(self, content: str) -> tuple[int, AsyncIterator[bytes]] | None:
        """Size and bytes of a stored content, or None when it is not here. ``content`` is 64 lowercase hex digits."""
        ...

    def status(self) -> Json: ...

    def account(self) -> Json: ...

    def orders(self) -> list[Json]: ...

    def trades(self) -> list[Json]: ...

    def channels(self) -> list[Json]: ...

    def peers(self) -> list[Json]: ...

    def workers(self) -> list[Json]: ...

    def books(self) -> list[Json]: ...

    def book_messages(self, book: str) -> Json:
        """What the node's copy of a book (its id in hex) is made of. Raises ``Refused``."""
        ...

    def mandates(self) -> list[Json]: ...

    def articles(self) -> list[Json]: ...

    def depth(self, book: str, *, levels: int) -> Json:
        """The orders of a book by price, at most ``levels`` of each side. Raises ``Refused``."""
        ...

    def prices(self, book: str, *, slot: str, series: str, from_us: int | None, to_us: int | None, limit: int) -> Json:
        """Price statistics of a book in time slots, the latest ``limit`` of those asked for. Raises ``Refused``."""
        ...

    def metrics(self) -> bytes:
        """How the node is, in Prometheus' text format."""
        ...

    async def watch(self, article: str) -> None:
        """Take part in the books of ``article`` from now on, so that ``books`` shows them."""
        ...

    async def close_channels(self, reason: str) -> list[Json]:
        """Begin to close every channel on chain; returns those that were asked to close."""
        ...

    def bonds(self) -> list[Json]: ...

    async def lock_bond(self, value_sat: int, *, blocks: int) -> Json:
        """Lock coins for so many blocks; returns the bond. Raises ``Refused``."""
        ...

    async def release_bond(self, bond: str) -> Json:
        """Take a bond back whose time is over; returns it. Raises ``Refused``."""
        ...

    def frauds(self) -> list[Json]: ...

    def cases(self) -> list[Json]: ...

    def appeals(self) -> list[Json]: ...

    async def appeal(self, channel: str, *, to_seller_sat: int | None, statement: str) -> Json:
        """Ask the arbiter of a channel for a ruling; None: as our own books say. Returns the appeal. Raises ``Refused``."""
        ...

    async def rule(self, case: str, *, to_seller_sat: int, reason: str) -> Json:
        """Rule on a case as its arbiter; returns it. Raises ``Refused``."""
        ...

    def events(self, after: int | None = None) -> AsyncIterator[Json]:
        """What happens from now on, or after the event with the id ``after``. Endless; closed by the reader."""
        ...


STATUS: Final = {
    # what the asker wrote
    "bad-address": 400,
    "bad-amount": 400,
    "bad-article": 400,
    "bad-blocks": 400,
    "bad-checksum": 400,
    "bad-content-length": 400,
    "bad-feerate": 400,
    "bad-levels": 400,
    "bad-limit": 400,
    "bad-multipart": 400,
    "bad-peer-id": 400,
    "bad-range": 400,
    "bad-request": 400,
    "bad-series": 400,
    "bad-slot": 400,
    "bad-slots": 400,
    "bad-url": 400,
    "bad-wait": 400,
    "bad-worker": 400,
    "dust": 400,
    "wrong-network": 400,
    "token-missing": 401,
    "token-wrong": 401,
    "mandate-ended": 402,
    "no-funds": 402,
    "host-refused": 403,
    "origin-refused": 403,
    "over-cap": 403,
    "not-found": 404,
    "unknown-bond": 404,
    "unknown-book": 404,
    "unknown-case": 404,
    "unknown-channel": 404,
    "unknown-file": 404,
    "unknown-mandate": 404,
    "unknown-order": 404,
    "unknown-worker": 404,
    "wrong-method": 405,
    "slow-body": 408,
    "already-ruled": 409,
    "appeals-full": 409,
    "bad-ruling": 409,
    "bond-dust": 409,
    "bonds-full": 409,
    "cancelled": 409,
    "mandates-full": 409,
    "name-taken": 409,
    "no-arbiter": 409,
    "no-auction": 409,
    "no-chain": 409,
    "not-locked": 409,
    "not-open": 409,
    "request-reused": 409,
    "stalls-full": 409,
    "too-early": 409,
    "workers-full": 409,
    "too-large": 413,
    # what the market or the node could not do
    "work-failed": 502,
    "spent": 502,
    "busy": 503,
    "chain-down": 503,
    "inbox-full": 503,
    "shutting-down": 503,
    "no-match": 504,
    "timed-out": 504,
}
"""The HTTP status of every named refusal. Others are 502 for ``Refused`` and 500 for faults of this machine."""


def status_of(error: BitwrkError) -> int:
    """The HTTP status that tells a program what kind of failure ``error`` is."""
    if error.code in STATUS:
        return STATUS[error.code]
    if isinstance(error, LocalFault):
        return 500
    return 502 if isinstance(error, Refused) else 500
