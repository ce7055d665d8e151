"""A client of a node's local API, for the commands and for anybody's Python program. Needs httpx and nothing of the node.

with LocalNode.at(Path("~/.bitwrk").expanduser()) as node:
    content = node.buy("net.bitwrk/rays/1", [work], bid="uBTC 340")
    with open("result", "wb") as sink:
        node.fetch(content, sink)
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final
from urllib.parse import quote

import httpx

from peer.home import Home
from wire.errors import LocalFault, Refused

_CONNECT_S: Final = 5
_ANSWER_S: Final = 30
_PIECE_BYTES: Final = 1 << 16


class LocalNode:
    """The node on this machine that listens on ``port``. Every method raises ``Refused`` with the node's own code and
    sentence, or ``LocalFault`` when no node answers.
    """

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {token}", "accept": "application/json"},
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            trust_env=False,  # a proxy has no business with the token
        )

    @classmethod
    def at(cls, home: Path) -> "LocalNode":
        """The node that runs in the folder ``home``, found by the port and the token it left there."""
        found = Home(home)
        return cls(found.api_port(), found.read_token())

    def __enter__(self) -> "LocalNode":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def read(self, what: str) -> Any:
        """What ``GET /v1/<what>`` says: status, account, orders, trades, channels, peers, workers, books,
        articles or mandates.
        """
        return self._json("GET", f"/v1/{what}")

    def follow(self, article: str) -> Any:
        """Take part in the books of an article from now on; returns all books followed."""
        return self._json("POST", "/v1/books", {"article": article})

    def depth(self, book: str, *, levels: int | None = None) -> dict[str, Any]:
        """The orders of a book by price."""
        params = {} if levels is None else {"levels": str(levels)}
        told: dict[str, Any] = self._json("GET", f"/v1/books/{quote(book, safe='')}/depth", params)
        return told

    def prices(
        self,
        book: str,
        slot: str,
        *,
        series: str = "matched",
        from_us: int | None = None,
        to_us: int | None = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Price statistics of a book in time slots."""
        given = {"slot": slot, "series": series, "from_us": from_us, "to_us": to_us, "limit": limit}
        params = {name: str(value) for name, value in given.items() if value is not None}
        told: dict[str, Any] = self._json("GET", f"/v1/books/{quote(book, safe='')}/prices", params)
        return told

    def store(self, content: Iterable[bytes]) -> str:
        """Keep a content in the node's store and return its id."""
        request = self._http.build_request(
            "POST",
            "/v1/files",
            content=iter(content),
            headers={"content-type": "application/octet-stream"},
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
        )
        return str(self._sent(request)["id"])

    def place_buy(self, article: str, work: str, *, price: str | None = None, wait_s: float | None = None) -> str:
        """Begin to have the stored content ``work`` done for at most ``price`` (None: for nothing); returns the order's id."""
        body: dict[str, Any] = {"side": "buy", "article": article, "work": work, "price": price}
        if wait_s is not None:
            body["wait"] = wait_s
        return str(self._json("POST", "/v1/orders", body=body)["id"])

    def place_sell(self, article: str, worker: str, *, price: str | None = None, slots: int = 1) -> str:
        """Sell what a worker of the node does at ``price`` a unit (None: for nothing); returns the order's id."""
        body = {"side": "sell", "article": article, "worker": worker, "price": price, "slots": slots}
        return str(self._json("POST", "/v1/orders", body=body)["id"])

    def cancel_order(self, order: str) -> Any:
        """Withdraw an order by its id."""
        return self._json("DELETE", "/v1/orders/" + quote(order, safe=""))

    def grant(
        self, side: str, article: str, price: str, *, trades: int | None = None, minutes: int | None = None
    ) -> dict[str, Any]:
        """Allow trades without being asked; returns the mandate."""
        body = {"side": side, "article": article, "price": price, "trades": trades, "minutes": minutes}
        granted: dict[str, Any] = self._json("POST", "/v1/mandates", body=body)
        return granted

    def revoke(self, mandate: str) -> Any:
        """End a mandate by its id."""
        return self._json("DELETE", "/v1/mandates/" + quote(mandate, safe=""))

    def register_worker(self, name: str, article: str, push_url: str) -> Any:
        """Let the node give work to a worker that listens at ``push_url``, or tell it that the worker is idle again."""
        return self._json("POST", "/v1/workers", body={"id": name, "article": article, "pushurl": push_url})

    def unregister_worker(self, name: str) -> Any:
        """Let the node forget a worker."""
        return self._json("DELETE", "/v1/workers/" + quote(name, safe=""))

    def close_channels(self, reason: str) -> Any:
        """Have every channel closed on chain; returns those that were asked to close."""
        return self._json("POST", "/v1/channels/close", {"reason": reason})

    def lock_bond(self, value_sat: int, *, blocks: int) -> dict[str, Any]:
        """Lock coins as a bond; returns it."""
        told: dict[str, Any] = self._json("POST", "/v1/bonds", {"value_sat": str(value_sat), "blocks": str(blocks)})
        return told

    def release_bond(self, bond: str) -> dict[str, Any]:
        """Take a bond back; returns it."""
        told: dict[str, Any] = self._json("POST", f"/v1/bonds/{quote(bond, safe='')}/release")
        return told

    def appeal(self, channel: str, *, to_seller_sat: int | None = None, statement: str = "") -> dict[str, Any]:
        """Ask the arbiter of a channel for a ruling; returns the appeal."""
        params = {"statement": statement} | ({} if to_seller_sat is None else {"to_seller_sat": str(to_seller_sat)})
        told: dict[str, Any] = self._json("POST", f"/v1/channels/{quote(channel, safe='')}/appeal", params)
        return told

    def rule(self, case: str, *, to_seller_sat: int, reason: str = "") -> dict[str, Any]:
        """Rule on a case; returns it."""
        params = {"to_seller_sat": str(to_seller_sat), "reason": reason}
        told: dict[str, Any] = self._json("POST", f"/v1/cases/{quote(case, safe='')}/ruling", params)
        return told

    def buy(
        self, article: str, work: Iterable[bytes], *, bid: str | None = None, wait_s: float | None = None, size: int | None = None
    ) -> str:
        """Have ``work`` done for at most ``bid`` (``uBTC 340``; None: only for nothing) and return the content id of the result.

        Waits as long as it takes. ``size`` is the length of the work when it is known before.
        """
        params = {} if bid is None else {"price": bid}
        if wait_s is not None:
            params["wait"] = f"{wait_s:g}"
        headers = {"content-type": "application/octet-stream"}
        if size is not None:
            headers["content-length"] = str(size)
        request = self._http.build_request(
            "POST",
            "/buy/" + quote(article),
            params=params,
            content=iter(work),
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
        )
        with self._answer(request) as answer:
            place = answer.headers.get("location", "")
            if answer.status_code != 303 or not place.startswith("/file/"):
                raise LocalFault("strange-answer", f"what listens on port {self.port} is no BitWrk node")
            return str(place.removeprefix("/file/"))

    def fetch(self, content: str, sink: IO[bytes]) -> int:
        """Write the bytes of a content into ``sink`` and return how many they were."""
        written = 0
        with self._answer(self._http.build_request("GET", "/file/" + quote(content, safe=""))) as answer:
            for piece in answer.iter_bytes(_PIECE_BYTES):
                sink.write(piece)
                written += len(piece)
        return written

    def wallet(self, what: str = "", **params: str) -> Any:
        """What ``GET /v1/wallet[/<what>]`` says: nothing more, history, fees, or escrows/<channel>."""
        return self._json("GET", "/v1/wallet" + (f"/{what}" if what else ""), params)

    def wallet_asks(self, what: str, body: dict[str, Any]) -> Any:
        """What ``POST /v1/wallet/<what>`` answers: quote, send or recall."""
        return self._json("POST", f"/v1/wallet/{what}", body=body)

    def events(self, after: int | None = None) -> Iterator[dict[str, Any]]:
        """What happens from now on, or after the event with the id ``after``, until the node stops."""
        headers = {} if after is None else {"last-event-id": str(after)}
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        request = self._http.build_request("GET", "/v1/events", headers=headers, timeout=timeout)
        with self._answer(request) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def _json(self, method: str, path: str, params: dict[str, str] | None = None, body: dict[str, Any] | None = None) -> Any:
        return self._sent(self._http.build_request(method, path, params=params, json=body))

    def _sent(self, request: httpx.Request) -> Any:
        with self._answer(request) as answer:
            answer.read()
            try:
                return answer.json()
            except ValueError:
                raise LocalFault("strange-answer", f"what listens on port {self.port} is no BitWrk node") from None

    @contextmanager
    def _answer(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """The answer to ``request``, open for reading. Raises what the node refused."""
        try:
            answer = self._http.send(request, stream=True)
            try:
                if answer.status_code >= 400:
                    answer.read()
                    raise _refusal(answer)
                yield answer
            finally:
                answer.close()
        except httpx.ConnectError:
            raise LocalFault(
                "no-node", f"no node answers on port {self.port} of this machine; start one with: bitwrk node"
            ) from None
        except httpx.TimeoutException:
            raise LocalFault("no-answer", f"the node on port {self.port} does not answer in time") from None
        except httpx.TransportError:
            raise LocalFault("node-gone", f"the node on port {self.port} ended the connection; see its log") from None


def _refusal(answer: httpx.Response) -> Refused:
    try:
        told = answer.json()
        return Refused(str(told["error"]), str(told["reason"]))
    except (ValueError, KeyError, TypeError):
        return Refused("refused", f"the node answered {answer.status_code} without a reason")
