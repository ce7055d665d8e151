"""A development chain for several nodes on one machine: one process owns a regtest and serves a subset of Core's JSON-RPC.

Play money. Every node uses the ordinary ``core`` driver against it, so what is tried here is what runs against a real node. It
listens on loopback only, takes no request that a web page could send (Host is checked, Origin refused) and bounds every body.
"""

import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from escrow.shell.dev_methods import RpcError, call_method
from escrow.shell.kernel import KernelChain
from escrow.shell.regtest import Regtest
from wire.errors import LocalFault
from wire.limits import RPC_BATCH_MAX, RPC_BODY_MAX_BYTES
from wire.network import REGTEST

LOOPBACK = "127.0.0.1"
BLOCK_INTERVAL_MS = 1_000

_PARSE_ERROR = -32_700
_INVALID_REQUEST = -32_600


def bind_loopback(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 chooses one. Raises ``LocalFault`` when it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
    except OSError as error:
        sock.close()
        raise LocalFault("port-in-use", f"the development chain cannot use port {port}: {error.strerror}") from None
    return sock


def _answer(identity: Any, result: Any = None, error: RpcError | None = None) -> dict[str, Any]:
    told = None if error is None else {"code": error.code, "message": error.message}
    return {"result": result, "error": told, "id": identity}


def _one(chain: Regtest, request: Any) -> dict[str, Any]:
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return _answer(None, error=RpcError(_INVALID_REQUEST, "Invalid Request object"))
    identity, parameters = request.get("id"), request.get("params", [])
    try:
        return _answer(identity, call_method(chain, request["method"], parameters))
    except RpcError as error:
        return _answer(identity, error=error)


async def _body(request: Request) -> bytes | None:
    """The whole body, or None as soon as it is too long."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > RPC_BODY_MAX_BYTES:
        return None
    body = b""
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > RPC_BODY_MAX_BYTES:
                return None
    return body


def _endpoint(chain: KernelChain, port: int) -> Callable[[Request], Awaitable[Response]]:
    hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("host") not in hosts or "origin" in request.headers:
            return JSONResponse(_answer(None, error=RpcError(_INVALID_REQUEST, "only local programs may ask")), 403)
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return JSONResponse(_answer(None, error=RpcError(_INVALID_REQUEST, "the request is too long")), 413)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return JSONResponse(_answer(None, error=RpcError(_PARSE_ERROR, "Parse error")), 500)
        if not isinstance(asked, list):
            answer = await chain.call(lambda regtest: _one(regtest, asked))
            return JSONResponse(answer, 200 if answer["error"] is None else 500)
        if not 0 < len(asked) <= RPC_BATCH_MAX:
            return JSONResponse(_answer(None, error=RpcError(_INVALID_REQUEST, "the batch is empty or too long")), 500)
        # One turn of the chain's thread for the whole batch, so its answers fit together.
        return JSONResponse(await chain.call(lambda regtest: [_one(regtest, one) for one in asked]))

    return endpoint


async def _mine_steadily(chain: KernelChain, interval_ms: int) -> None:
    while True:
        await trio.sleep(interval_ms / 1_000)
        await chain.mine_waiting()


async def serve_devchain(
    home: Path,
    port: int,
    *,
    block_interval_ms: int = BLOCK_INTERVAL_MS,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the chain kept in ``home`` until cancelled; ``task_status`` is given the actual port.

    A block is made every ``block_interval_ms`` while a transaction waits; 0 makes blocks on demand only. Raises ``LocalFault``.
    """
    sock = bind_loopback(port)
    port = sock.getsockname()[1]
    stopped = trio.Event()
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 1.0
    async with KernelChain.open(home, REGTEST) as chain:
        app = Starlette(routes=[Route("/", _endpoint(chain, port), methods=["POST"])])
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, app, config, stopped)
            if block_interval_ms:
                nursery.start_soon(_mine_steadily, chain, block_interval_ms)
            task_status.started(port)


async def _serve(app: Starlette, config: Config, stopped: trio.Event, *, task_status: trio.TaskStatus[list[str]]) -> None:
    await serve(app, config, shutdown_trigger=stopped.wait, task_status=task_status)  # type: ignore[arg-type]
