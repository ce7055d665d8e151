"""The routes below ``/v1/wallet``: the account's coins. None of them shows a secret."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import Body as JsonBody
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from wire.limits import ADDRESS_MAX_CHARS, RECALLED_PEERS_MAX, REQUEST_NAME_MAX_CHARS
from wire.money import MSAT_PER_SAT, BadAmount, parse_msat

_CREATED = 201
Json = dict[str, Any]


class WalletService(Protocol):
    """The wallet as its owner's programs see it. Everything raises ``Refused`` with a name for it, and ``ChainFault``."""

    async def holdings(self) -> Json:
        """Address and satoshi by state."""
        ...

    async def history(self, from_height: int | None) -> Json:
        """What happened to the account's coins, the latest first."""
        ...

    async def fees(self) -> Json:
        """The going rate, and what the usual transactions cost at it."""
        ...

    async def quote(self, address: str, value_sat: int | None, feerate: int | None) -> Json:
        """What a payment would cost; without a value, of everything."""
        ...

    async def send(self, request: str, address: str, value_sat: int | None, feerate: int | None) -> Json:
        """Pay; without a value, everything. The same ``request`` again is the same payment."""
        ...

    async def recall(self, peers: Sequence[str]) -> list[str]:
        """Ask sellers for channels that a lost disk held; returns who was asked."""
        ...

    def escrow(self, channel: str) -> Json:
        """What is kept of a channel, for an export."""
        ...


class NewQuote(BaseModel):
    """A payment to be thought about."""

    model_config = ConfigDict(extra="forbid", strict=True)

    address: str = Field(max_length=ADDRESS_MAX_CHARS, description="where to pay")
    amount: str | None = Field(default=None, max_length=64, examples=["sat 25000"], description="whole satoshi; null: everything")
    feerate: int | None = Field(default=None, description="satoshi per 1,000 virtual bytes; null: the going rate")


class NewPayment(NewQuote):
    """A payment to be made. ``request`` is its name: a request that comes again is the same payment."""

    request: str = Field(min_length=1, max_length=REQUEST_NAME_MAX_CHARS, pattern=r"^[!-~]+$")


class NewRecall(BaseModel):
    """Whom to ask for channels that a lost disk held."""

    model_config = ConfigDict(extra="forbid", strict=True)

    peers: list[str] = Field(default_factory=list, max_length=RECALLED_PEERS_MAX, description="peer ids; none: all connected")


def _satoshi(text: str | None) -> int | None:
    if text is None:
        return None
    amount = parse_msat(text)
    if amount % MSAT_PER_SAT or not amount:
        raise BadAmount("bad-amount", "on the chain an amount is whole satoshi, at least one")
    return amount // MSAT_PER_SAT


def add_wallet(app: FastAPI, wallet: WalletService) -> None:
    """Add the routes."""

    @app.get("/v1/wallet", summary="The account's coins by state")
    async def holdings() -> dict[str, Any]:
        """Satoshi that are confirmed, waiting, locked, too young, and in channels."""
        return await wallet.holdings()

    @app.get("/v1/wallet/history", summary="What happened to the account's coins")
    async def history(
        from_height: Annotated[int | None, Query(ge=0, description="the first block to read")] = None,
    ) -> dict[str, Any]:
        """The latest first, what waits before everything."""
        return await wallet.history(from_height)

    @app.get("/v1/wallet/fees", summary="The going fee rate and what it comes to")
    async def fees() -> dict[str, Any]:
        """In satoshi."""
        return await wallet.fees()

    @app.post("/v1/wallet/quote", summary="What a payment would cost")
    async def quote(asked: Annotated[NewQuote, JsonBody()]) -> dict[str, Any]:
        """Nothing is kept or locked."""
        return await wallet.quote(asked.address, _satoshi(asked.amount), asked.feerate)

    @app.post("/v1/wallet/send", status_code=_CREATED, summary="Pay out of the wallet")
    async def send(asked: Annotated[NewPayment, JsonBody()]) -> dict[str, Any]:
        """Made once, however often the request comes. What the chain has not shown (``seen``) is broadcast again."""
        return await wallet.send(asked.request, asked.address, _satoshi(asked.amount), asked.feerate)

    @app.post("/v1/wallet/recall", summary="Ask sellers for channels that a lost disk held")
    async def recall(asked: Annotated[NewRecall, JsonBody()]) -> dict[str, Any]:
        """What they hold shows in channels, and is closed at once."""
        return {"asked": await wallet.recall(asked.peers)}

    @app.get("/v1/wallet/escrows/{channel}", summary="What is kept of a channel, for an export")
    async def escrow(channel: str) -> dict[str, Any]:
        """The channel's row and the locks of its payments, as they are stored."""
        return wallet.escrow(channel)
