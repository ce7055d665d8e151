"""The routes: the original's, which any program of 2013 could use, and ``/v1``."""

import logging
import math
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import trio
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from peer.api.answers import INERT, NoAnswer, Streamed, refusal
from peer.api.body import Body, exhaust, work_in
from peer.api.gate import token_missing
from peer.api.service import NodeService, status_of
from peer.api.v1 import ARTICLE, add_v1, price_msat
from peer.config import VERSION
from wire.errors import BitwrkError, LocalFault, Refused, named_in
from wire.limits import API_WAIT_DEFAULT_S, API_WAIT_MAX_S, ARTICLE_MAX_CHARS

_LOG: Final = logging.getLogger("bitwrk.api")

ID_TEXT: Final = "BitWrk Client"
_COMPLAINT_MAX_CHARS: Final = 500
_FIELDS_MAX: Final = 16
_CONTENT: Final = re.compile(r"[0-9a-f]{64}")


def make_app(service: NodeService, stop: trio.Event) -> FastAPI:
    """The application. ``stop`` ends event streams and waiting purchases."""
    app = FastAPI(
        title="BitWrk local API",
        version=VERSION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _answer_errors(app)
    _add_original(app, service, stop)
    _add_workers(app, service)
    add_v1(app, service, stop)
    return app


def _answer_errors(app: FastAPI) -> None:
    def say(request: Request, error: BitwrkError) -> Response:
        return refusal(error, request.url.path, request.headers.get("accept", ""))

    async def named(request: Request, error: Exception) -> Response:
        told = error if isinstance(error, BitwrkError) else LocalFault("internal-error", str(error))
        if status_of(told) == 500:
            _LOG.error("%s %s: %s", request.method, request.url.path, told.sentence, exc_info=error)
        return say(request, told)

    async def routed(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            answer = say(request, Refused("wrong-method", f"{request.method} is not for this address"))
            answer.headers.update(error.headers or {})
            return answer
        cause = named_in(error.__cause__) if error.__cause__ is not None else None
        if cause is not None:  # what our own reading of the body refused
            return say(request, cause)
        if isinstance(error, HTTPException) and error.status_code == 400:
            return say(request, Refused("bad-request", f"not understood: {error.detail}"))
        return say(request, Refused("not-found", "there is nothing at this address"))

    async def invalid(request: Request, error: Exception) -> Response:
        fields = error.errors() if isinstance(error, RequestValidationError) else ()
        where = "; ".join(sorted({f"{field['loc'][-1]}: {field['msg']}" for field in fields}))
        return say(request, Refused("bad-request", f"not understood: {where or 'the request'}"[:_COMPLAINT_MAX_CHARS]))

    async def unexpected(request: Request, error: Exception) -> Response:
        _LOG.error("error while answering %s %s", request.method, request.url.path, exc_info=error)
        request.state.logged = True
        return say(request, LocalFault("internal-error", "the node made a mistake; its log says more"))

    app.add_exception_handler(BitwrkError, named)
    app.add_exception_handler(HTTPException, routed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


async def _unless_gone(body: Body, stop: trio.Event, work: Callable[[], Awaitable[str]]) -> str | None:
    """What ``work`` returns, or None when the client hung up first, which cancels it. Raises ``Refused``."""
    done: str | None = None
    refused: BitwrkError | None = None

    async def end_after(happens: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        await happens()
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_after, body.hung_up, nursery.cancel_scope)
            nursery.start_soon(end_after, stop.wait, nursery.cancel_scope)
            try:
                done = await work()
            except BitwrkError as error:
                refused = error
            nursery.cancel_scope.cancel()
    except Exception as error:
        refused = named_in(error)
        if refused is None and body.fault is None:
            raise
    if isinstance(body.fault, BitwrkError):
        raise body.fault
    if refused is not None:
        raise refused
    if done is None and body.fault is None and stop.is_set():
        raise Refused("shutting-down", "the node is shutting down")
    return done


def _add_original(app: FastAPI, service: NodeService, stop: trio.Event) -> None:
    @app.post("/buy/{article:path}", status_code=303, response_class=Response, summary="Have work done")
    async def buy(
        request: Request,
        article: str,
        price: Annotated[str | None, Query(description="the highest price, for example 'uBTC 340'; needs the token")] = None,
        wait: Annotated[float, Query(description="seconds to look for a seller")] = API_WAIT_DEFAULT_S,
        once: Annotated[
            bool, Query(description="never spend more than one price on it, even when a seller lets us down")
        ] = False,
    ) -> Response:
        """Body: the work, raw or as the part ``data`` of a multipart form. Without a price the bid is that of a mandate to buy
        the article; without such a mandate only free books are tried.
        """
        if price is not None and not request.state.authorised:
            raise token_missing()
        bid_msat = None if price is None else price_msat(price)
        if not (math.isfinite(wait) and 0 < wait <= API_WAIT_MAX_S):
            raise Refused("bad-wait", f"wait takes seconds, more than 0 and at most {API_WAIT_MAX_S}")
        if not 0 < len(article) <= ARTICLE_MAX_CHARS or ARTICLE.fullmatch(article) is None:
            raise Refused("bad-article", f"an article is 1 to {ARTICLE_MAX_CHARS} visible ASCII characters")
        body, work = work_in(request.receive, request.headers.get("content-type", ""), request.headers.get("content-length"))

        async def trade() -> str:
            stored = await service.put(work)
            await exhaust(work)
            return await service.buy(article, stored, bid_msat=bid_msat or None, wait_s=wait, mandated=price is None, once=once)

        result = await _unless_gone(body, stop, trade)
        return NoAnswer() if result is None else RedirectResponse(f"/file/{result}", status_code=303)

    @app.get("/file/{content}", response_class=Response, summary="Fetch a stored content")
    async def file(content: str) -> Response:
        """The bytes of a content by its id in hex."""
        wanted = content.lower()
        found = await service.open_file(wanted) if _CONTENT.fullmatch(wanted) else None
        if found is None:
            raise Refused("unknown-file", "there is no such file here")
        size, pieces = found
        return Streamed(pieces, media_type="application/octet-stream", headers={"content-length": str(size), **INERT})

    @app.get("/id", response_class=PlainTextResponse, summary="What answers here")
    async def identity() -> str:
        """A literal by which programs know that they reached a BitWrk node."""
        return ID_TEXT

    @app.get("/version", response_class=PlainTextResponse, summary="The version of the node")
    async def version() -> str:
        """The version as x.y.z."""
        return VERSION


def _add_workers(app: FastAPI, service: NodeService) -> None:
    async def form(request: Request, *names: str) -> list[str]:
        """The fields of a form, each of them given. Raises ``Refused``."""
        async with request.form(max_files=0, max_fields=_FIELDS_MAX) as given:
            found = [given.get(name) for name in names]
        texts = [one.strip() for one in found if isinstance(one, str) and one.strip()]
        if len(texts) != len(names):
            raise Refused("bad-request", f"the form needs the fields {', '.join(names)}")
        return texts

    @app.post("/registerworker", response_class=PlainTextResponse, summary="Register a worker, or say that it is idle again")
    async def register(request: Request) -> str:
        """Form fields ``id``, ``article``, ``pushurl``, as in the original; the token may stand in the query."""
        name, article, push_url = await form(request, "id", "article", "pushurl")
        await service.register_worker(name, article, push_url)
        return "registered\n"

    @app.post("/unregisterworker", response_class=PlainTextResponse, summary="Unregister a worker")
    async def unregister(request: Request) -> str:
        """Form field ``id``."""
        (name,) = await form(request, "id")
        await service.unregister_worker(name)
        return "unregistered\n"
