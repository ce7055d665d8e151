"""The routes below ``/v1``: everything about the node in JSON, and what its owner can ask of it. All need the token."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

import trio
from fastapi import Body as JsonBody
from fastapi import FastAPI, Header, Query, Request
from starlette.responses import JSONResponse, Response

from peer.api.answers import EventLines, NoAnswer, Streamed
from peer.api.bodies import BuyOrder, NewMandate, NewWorker, Order
from peer.api.body import HungUp, exhaust, work_in
from peer.api.service import Json, NodeService
from peer.api.wallet import add_wallet
from wire.errors import Refused
from wire.limits import (
    ARTICLE_MAX_CHARS,
    PRICE_MAX_MSAT,
    REASON_MAX_CHARS,
    STATEMENT_MAX_BYTES,
    SUPPLY_MAX_SAT,
    TAPE_SLOTS_MAX,
)
from wire.money import BadAmount, parse_msat, show_msat

ARTICLE: Final = re.compile(r"[!-~]+")
_CREATED: Final = 201
_LEVELS: Final = 20
SLOTS: Final = "1s, 6s, 30s, 1m, 3m, 12m, 1h, 6h, 1d, 1w, 6w or 1y"
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Listing = Callable[[], Json | list[Json]]


def price_msat(text: str) -> int:
    """The amount in ``text``, if it can be the price of a unit. Raises ``BadAmount``."""
    amount = parse_msat(text)
    if amount > PRICE_MAX_MSAT:
        raise BadAmount("bad-amount", f"a unit costs at most {show_msat(PRICE_MAX_MSAT)}")
    return amount


def add_v1(app: FastAPI, service: NodeService, stop: trio.Event) -> None:
    """Add every route below ``/v1``."""
    _add_listings(app, service)
    _add_books_and_channels(app, service)
    _add_disputes(app, service)
    _add_bonds(app, service)
    _add_quotes(app, service)
    _add_orders(app, service)
    _add_mandates(app, service)
    _add_workers(app, service)
    _add_files(app, service)
    add_wallet(app, service.wallet)
    _add_watching(app, service, stop)


def _add_listings(app: FastAPI, service: NodeService) -> None:
    def listing(name: str, read: Listing, summary: str) -> None:
        async def answer() -> JSONResponse:
            return JSONResponse(read())

        app.add_api_route(f"/v1/{name}", answer, methods=["GET"], name=name, summary=summary, response_class=JSONResponse)

    listing("status", service.status, "How the node is")
    listing("account", service.account, "Who the node is and what it has")
    listing("orders", service.orders, "Own orders")
    listing("trades", service.trades, "Trades, open and finished")
    listing("channels", service.channels, "Escrow channels")
    listing("peers", service.peers, "Connected nodes")
    listing("workers", service.workers, "Workers of this node")
    listing("books", service.books, "Order books this node follows")
    listing("articles", service.articles, "What is traded where, under which terms and at what prices")
    listing("mandates", service.mandates, "What may be traded without asking")
    listing("bonds", service.bonds, "Own bonds, and those that others have announced")
    listing("frauds", service.frauds, "Accounts that are proven to be frauds")
    listing("cases", service.cases, "Cases before this node as an arbiter")
    listing("appeals", service.appeals, "Own appeals to arbiters")


def _add_books_and_channels(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/books", summary="Follow the books of an article")
    async def watch(article: Annotated[str, Query(max_length=ARTICLE_MAX_CHARS)]) -> list[dict[str, Any]]:
        """Take part in the books of an article from now on, to see its market before trading; returns all books followed."""
        if ARTICLE.fullmatch(article) is None:
            raise Refused("bad-article", f"an article is 1 to {ARTICLE_MAX_CHARS} visible ASCII characters")
        await service.watch(article)
        return service.books()

    @app.get("/v1/books/{book}/messages", summary="What this node's copy of a book is made of")
    async def messages(book: str) -> dict[str, Any]:
        """Orders, closes and proofs, the latest key epoch first: books differ in what one node lacks or heard late."""
        return service.book_messages(book)

    @app.post("/v1/channels/close", summary="Close all channels on chain")
    async def close_channels(
        reason: Annotated[str, Query(max_length=REASON_MAX_CHARS)] = "asked by the owner",
    ) -> list[dict[str, Any]]:
        """Begin to close every channel; returns those that were asked to close."""
        return await service.close_channels(reason)


def _add_disputes(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/channels/{channel}/appeal", summary="Ask the arbiter of a channel for a ruling")
    async def appeal(
        channel: str,
        to_seller_sat: Annotated[int | None, Query(ge=0, le=SUPPLY_MAX_SAT, description="default: as own books say")] = None,
        statement: Annotated[str, Query(max_length=STATEMENT_MAX_BYTES)] = "",
    ) -> dict[str, Any]:
        """Goes to the arbiter with the evidence that this node has; what becomes of it stands in appeals."""
        return await service.appeal(channel, to_seller_sat=to_seller_sat, statement=statement)

    @app.post("/v1/cases/{case}/ruling", summary="Rule on a case, as its arbiter")
    async def rule(
        case: str,
        to_seller_sat: Annotated[int, Query(ge=0, le=SUPPLY_MAX_SAT)],
        reason: Annotated[str, Query(max_length=STATEMENT_MAX_BYTES)] = "",
    ) -> dict[str, Any]:
        """There is one ruling for each case; the buyer gets the rest but for the fee."""
        return await service.rule(case, to_seller_sat=to_seller_sat, reason=reason)


def _add_bonds(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/bonds", status_code=_CREATED, summary="Lock coins as a bond")
    async def lock(
        value_sat: Annotated[int, Query(ge=0, le=SUPPLY_MAX_SAT)],
        blocks: Annotated[int, Query(description="how long nobody can have them, their owner included")],
    ) -> dict[str, Any]:
        """Nobody can shorten this; what becomes of it stands in bonds."""
        return await service.lock_bond(value_sat, blocks=blocks)

    @app.post("/v1/bonds/{bond}/release", summary="Take a bond back")
    async def release(bond: str) -> dict[str, Any]:
        """From its height on; the coins go to the node's own address."""
        return await service.release_bond(bond)


def _add_quotes(app: FastAPI, service: NodeService) -> None:
    @app.get("/v1/books/{book}/depth", summary="The orders of a book by price")
    async def depth(
        book: str,
        levels: Annotated[int, Query(description="prices of each side, best first")] = _LEVELS,
    ) -> dict[str, Any]:
        """The eligible orders of the book's latest auction, and what it matched of them."""
        return service.depth(book, levels=levels)

    @app.get("/v1/books/{book}/prices", summary="Price statistics of a book in time slots")
    async def prices(
        book: str,
        slot: Annotated[str, Query(description=f"the length of a slot: {SLOTS}")] = "1h",
        series: Annotated[str, Query(description="matched: by this node's auctions; agreed: own, signed")] = "matched",
        from_us: Annotated[int | None, Query(description="slots that begin from this moment on")] = None,
        to_us: Annotated[int | None, Query(description="and before this one")] = None,
        limit: Annotated[int, Query(description="the latest so many of them")] = TAPE_SLOTS_MAX,
    ) -> dict[str, Any]:
        """Sum, least, most and count in each slot; slots in which nothing was matched are left out."""
        return service.prices(book, slot=slot, series=series, from_us=from_us, to_us=to_us, limit=limit)


def _add_orders(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/orders", status_code=_CREATED, summary="Place an order")
    async def place(order: Annotated[Order, JsonBody()]) -> dict[str, Any]:
        """Returns at once; what becomes of it is seen in orders, trades and events."""
        price = None if order.price is None else price_msat(order.price)
        if isinstance(order, BuyOrder):
            number = await service.place_buy(order.article, order.work.lower(), bid_msat=price or None, wait_s=order.wait)
        else:
            number = await service.place_sell(order.article, order.worker, ask_msat=price or 0, slots=order.slots)
        return {"id": number}

    @app.delete("/v1/orders/{order}", summary="Cancel an order")
    async def cancel(order: str) -> dict[str, Any]:
        """What both sides have signed for is completed; everything else is withdrawn."""
        await service.cancel_order(order)
        return {"id": order, "cancelled": True}


def _add_mandates(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/mandates", status_code=_CREATED, summary="Grant a mandate")
    async def grant(mandate: NewMandate) -> dict[str, Any]:
        """Allow trades of an article at a price without being asked."""
        return await service.grant(
            mandate.side,
            mandate.article,
            price_msat=price_msat(mandate.price),
            trades=mandate.trades,
            minutes=mandate.minutes,
        )

    @app.delete("/v1/mandates/{mandate}", summary="Revoke a mandate")
    async def revoke(mandate: str) -> dict[str, Any]:
        """Nothing more is traded under it; requests that still wait for a seller under it are refused."""
        await service.revoke(mandate)
        return {"id": mandate, "revoked": True}


def _add_workers(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/workers", status_code=_CREATED, summary="Register a worker, or say that it is idle again")
    async def register(worker: NewWorker) -> dict[str, Any]:
        """The worker must listen on this machine or in its local network; it has to register again after every work."""
        return await service.register_worker(worker.id, worker.article, worker.pushurl)

    @app.delete("/v1/workers/{worker}", summary="Unregister a worker")
    async def unregister(worker: str) -> dict[str, Any]:
        """What it computes at the moment is given up."""
        await service.unregister_worker(worker)
        return {"id": worker, "registered": False}


def _add_files(app: FastAPI, service: NodeService) -> None:
    @app.post("/v1/files", status_code=_CREATED, summary="Store a content")
    async def store(request: Request) -> Response:
        """Body: the content, raw or as the part ``data`` of a multipart form. Returns its id."""
        body, content = work_in(request.receive, request.headers.get("content-type", ""), request.headers.get("content-length"))
        try:
            stored = await service.put(content)
            await exhaust(content)
        except Exception:
            if isinstance(body.fault, HungUp):
                return NoAnswer()
            raise body.fault or Refused("bad-request", "the body could not be stored") from None
        return JSONResponse({"id": stored}, status_code=_CREATED)


def _add_watching(app: FastAPI, service: NodeService, stop: trio.Event) -> None:
    @app.get("/v1/events", response_class=Response, summary="What happens, as server-sent events")
    async def events(last_event_id: Annotated[str, Header(max_length=20)] = "") -> Response:
        """Endless; each event is one JSON object with an id. ``Last-Event-ID`` begins after that one, if it is still known."""
        after = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else None
        return Streamed(
            EventLines(service.events(after)),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
            until=stop,
            heartbeat=b": here\n\n",
        )

    @app.get("/v1/metrics", response_class=Response, summary="Figures in Prometheus' text format")
    async def metrics() -> Response:
        """For a Prometheus server that shows the token."""
        return Response(service.metrics(), media_type=_METRICS_TYPE)
