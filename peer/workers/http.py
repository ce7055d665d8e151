"""Workers that somebody else runs and that take work over HTTP, as in the original: POST the work, 200 and the result.

A worker is asked for one work at a time. Being asked makes it busy until it registers again, which means "I am idle". An answer
of 500 means that it failed and will register again; any other failure that it is there but has nothing to do. After a
failed sale nothing is sold through it for ``HTTP_WORKER_BLOCK_S``. Giving a work up closes the connection, and the worker
is expected to notice.

Workers listen on this machine or in its local network, and are named by address: a name could be made to point elsewhere later.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio

from peer.workers.pool import PoolStatistics
from peer.workers.process import WorkFailed
from wire.errors import Refused
from wire.limits import (
    HTTP_WORKER_BLOCK_S,
    HTTP_WORKER_CONNECT_S,
    HTTP_WORKER_IDLE_WAIT_S,
    HTTP_WORKER_NAME_MAX_CHARS,
    HTTP_WORKER_URL_MAX_CHARS,
    RESULT_MAX_BYTES,
    WORK_TIME_MAX_S,
)

_NAME: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{HTTP_WORKER_NAME_MAX_CHARS}}}")
# Link-local addresses are left out: in data centres they hand out secrets.
_LOCAL: Final = tuple(
    ipaddress.ip_network(one) for one in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


def check_worker_name(name: str) -> str:
    """``name`` if a worker can be called that. Raises ``Refused``."""
    if _NAME.fullmatch(name) is None:
        raise Refused(
            "bad-worker", f"a worker's id has 1 to {HTTP_WORKER_NAME_MAX_CHARS} letters, digits and . _ : - and nothing else"
        )
    return name


def check_push_url(url: str) -> str:
    """``url`` if it leads to this machine or its local network. Raises ``Refused``."""
    wrong = "a pushurl leads to an address of this machine or its local network, such as http://127.0.0.1:9000/work"
    if len(url) > HTTP_WORKER_URL_MAX_CHARS or not url.isascii() or not url.isprintable():
        raise Refused("bad-url", wrong)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Refused("bad-url", wrong) from None
    if parts.scheme not in ("http", "https") or parts.username is not None or parts.password is not None or port == 0:
        raise Refused("bad-url", wrong)
    if host == "localhost":
        return url
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Refused("bad-url", f"{host!r} is not an address; {wrong}") from None
    if not any(address in network for network in _LOCAL):
        raise Refused("bad-url", f"{host} is not in the local network; {wrong}")
    return url


class HttpWorker:
    """One registered worker. ``changed`` is called whenever ``slots`` or ``state`` may have changed; it must not wait."""

    def __init__(
        self, name: str, article: str, url: str, *, client: httpx.AsyncClient, nursery: trio.Nursery, changed: Callable[[], None]
    ) -> None:
        self.name = check_worker_name(name)
        self.article = article
        self.url = check_push_url(url)
        self._client = client
        self._nursery = nursery
        self._changed = changed
        self._idle = True
        self._busy = False
        self._gone = False
        self._blocks = 0
        self._scope = trio.CancelScope()
        self._news = trio.Event()
        self._waiting = self._done = self._cancelled = 0
        self._failed: dict[str, int] = {}
        self._last_error = ""

    # --- what it is doing ---------------------------------------------------------------------------------------------
    @property
    def state(self) -> str:
        """``working``, ``idle``, ``blocked`` after a failure, or ``silent`` until it registers again."""
        if self._busy:
            return "working"
        if self._blocks:
            return "blocked"
        return "idle" if self._idle else "silent"

    @property
    def slots(self) -> int:
        """How many works it can have at a time, at the moment."""
        return 1 if self.state in ("working", "idle") else 0

    def register(self, url: str) -> None:
        """It says that it is idle, and where. Raises ``Refused``."""
        self.url = check_push_url(url)
        self._idle = True
        self._tell()

    def hang_up(self) -> None:
        """It is not to be used any more: end what it does."""
        self._gone = True
        self._scope.cancel()
        self._news.set()

    def statistics(self) -> PoolStatistics:
        """How it is, in the terms of other workers."""
        return PoolStatistics(
            name=self.name,
            article=self.article,
            slots=1,
            busy=int(self._busy),
            waiting=self._waiting,
            done=self._done,
            cancelled=self._cancelled,
            started=0,
            failed=tuple(sorted(self._failed.items())),
            last_words=self._last_error,
            pids=(),
        )

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
        self._changed()

    # --- one work -----------------------------------------------------------------------------------------------------
    async def run(self, work: bytes, *, time_s: float | None = None) -> bytes:
        """The result of ``work``, within ``time_s`` seconds of being sent. Raises ``WorkFailed``; cancel it to hang up."""
        limit_s = WORK_TIME_MAX_S if time_s is None else min(time_s, WORK_TIME_MAX_S)
        await self._until_idle()
        self._busy, self._idle = True, False
        self._tell()
        try:
            result = await self._within(work, limit_s)
        except WorkFailed as failed:
            self._failed[failed.code] = self._failed.get(failed.code, 0) + 1
            self._last_error = failed.sentence
            self._idle = self._idle or failed.code != "worker-failed"
            self._block()
            raise
        except trio.Cancelled:
            self._cancelled += 1
            self._idle = True
            self._block()
            raise
        else:
            self._done += 1
            return result
        finally:
            self._busy = False
            self._tell()

    async def _within(self, work: bytes, limit_s: float) -> bytes:
        with trio.move_on_after(limit_s) as self._scope:
            return await self._ask(work)
        if self._gone:
            raise WorkFailed("worker-gone", f"the worker {self.name} was unregistered")
        raise WorkFailed("time-limit", f"the work was not done within {limit_s:g} s")

    async def _until_idle(self) -> None:
        self._waiting += 1
        try:
            with trio.move_on_after(HTTP_WORKER_IDLE_WAIT_S):
                while self.state != "idle" and not self._gone:
                    await self._news.wait()
                if not self._gone:
                    return
        finally:
            self._waiting -= 1
        raise WorkFailed("worker-silent", f"the worker {self.name} has not registered again since its last work")

    def _block(self) -> None:
        self._blocks += 1
        self._nursery.start_soon(self._unblock)

    async def _unblock(self) -> None:
        await trio.sleep(HTTP_WORKER_BLOCK_S)
        self._blocks -= 1
        self._tell()

    async def _ask(self, work: bytes) -> bytes:
        headers = {"content-type": "application/octet-stream", "accept-encoding": "identity"}
        result = bytearray()
        try:
            async with self._client.stream("POST", self.url, content=work, headers=headers) as answer:
                if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                    raise WorkFailed("worker-failed", f"the worker {self.name} could not do the work")
                if answer.status_code != httpx.codes.OK:
                    raise WorkFailed("bad-answer", f"the worker {self.name} answered {answer.status_code} instead of a result")
                async for piece in answer.aiter_raw():
                    if len(result) <= RESULT_MAX_BYTES:
                        result += piece
                    if len(result) > RESULT_MAX_BYTES:
                        await answer.aclose()  # and the next piece is an error; leaving the loop would leave its generators open
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            if len(result) <= RESULT_MAX_BYTES:
                raise WorkFailed("worker-gone", f"the worker {self.name} cannot be reached: {type(error).__name__}") from None
        if len(result) > RESULT_MAX_BYTES:
            raise WorkFailed("oversize-result", f"the result is longer than {RESULT_MAX_BYTES} bytes")
        return bytes(result)


def worker_client() -> httpx.AsyncClient:
    """The client that all workers share: follows nothing, asks no proxy, keeps no connection that a worker may have closed."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=HTTP_WORKER_CONNECT_S),
        limits=httpx.Limits(max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=False,
    )
