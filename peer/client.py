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
        """What ``GET /v1/<what>`` says: status, account, orders, trades, channels, peers, workers or books."""
        return self._json("GET", f"/v1/{what}")

    def close_channels(self, reason: str) -> Any:
        """Have every channel closed on chain; returns those that were asked to close."""
        return self._json("POST", "/v1/channels/close", {"reason": reason})

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

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens from now on, until the node stops."""
        request = self._http.build_request("GET", "/v1/events", timeout=httpx.Timeout(None, connect=_CONNECT_S))
        with self._answer(request) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def _json(self, method: str, path: str, params: dict[str, str] | None = None) -> Any:
        with self._answer(self._http.build_request(method, path, params=params)) as answer:
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
