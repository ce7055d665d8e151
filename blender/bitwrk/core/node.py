# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the node on this machine: its local API over HTTP, and nowhere else.

Port and token are read from the node's home when they are needed, so a restarted node is found again and no secret is ever kept
in a .blend file. The token is only taken from a file that nobody else can read.
"""

import contextlib
import http.client
import json
import os
import socket
import stat
import threading
from urllib.parse import quote, urlencode

HOST = "127.0.0.1"
ANSWER_MAX_BYTES = 16 << 20
RESULT_MAX_BYTES = 256 << 20
CONNECT_S = 5.0
_PIECE = 1 << 18
_SMALL_FILE = 4_096


class NodeError(Exception):
    """The node did not do it. ``code`` is the node's own word, or no-node, broken, cancelled."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def default_home() -> str:
    """Where a node lives unless it was told otherwise."""
    return os.environ.get("BITWRK_HOME") or os.path.join(os.path.expanduser("~"), ".bitwrk")


def _small_file(path: str, what: str, private: bool) -> str:
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError:
        raise NodeError("no-node", f"no node runs in {os.path.dirname(path)}; start one with: bitwrk node") from None
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(file.fileno())
        if private and os.name == "posix":
            if found.st_uid != os.geteuid():
                raise NodeError("no-node", f"the {what} {path} belongs to another user")
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise NodeError("no-node", f"the {what} {path} may be read by others; mend it with: chmod 600 {path}")
        return file.read(_SMALL_FILE).decode("ascii", "replace").strip()


class Purchase:
    """One order in flight. ``cancel`` closes its connection, which takes the order back; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = None
        self.cancelled = False

    def holds(self, connection: http.client.HTTPConnection) -> None:
        """Remember what to close."""
        with self._lock:
            if self.cancelled:
                raise NodeError("cancelled", "the order was taken back")
            self._connection = connection

    def cancel(self) -> None:
        """Hang up."""
        with self._lock:
            self.cancelled = True
            sock = self._connection and self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it was over already
                sock.shutdown(socket.SHUT_RDWR)


class NodeClient:
    """The node that lives in ``home``."""

    def __init__(self, home: str = "") -> None:
        self.home = os.path.abspath(os.path.expanduser(home or default_home()))

    def port(self) -> int:
        """The port that the node has announced. Raises ``NodeError``."""
        try:
            port = json.loads(_small_file(os.path.join(self.home, "api.json"), "file", False))["port"]
            if type(port) is not int or not 0 < port < 65_536:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise NodeError("no-node", f"the file api.json in {self.home} is damaged; start the node again") from None
        return port

    def _headers(self) -> dict:
        token = _small_file(os.path.join(self.home, "api-token"), "token", True)
        return {"Authorization": "Bearer " + token, "Accept": "application/json"}

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(HOST, self.port(), timeout=CONNECT_S)
        try:
            connection.connect()
        except OSError:
            raise NodeError("no-node", "the node does not answer; start it with: bitwrk node") from None
        connection.sock.settimeout(timeout)
        return connection

    def _answer(self, connection, most_bytes: int) -> tuple:
        """Status, headers and body. Raises ``NodeError`` when there is too much of it."""
        response = connection.getresponse()
        parts, size = [], 0
        while piece := response.read(_PIECE):
            size += len(piece)
            if size > most_bytes:
                raise NodeError("broken", f"the node's answer is longer than {most_bytes} bytes")
            parts.append(piece)
        return response.status, response.headers, b"".join(parts)

    @staticmethod
    def _refusal(status: int, headers, body: bytes) -> NodeError:
        code = headers.get("X-BitWrk-Error") or "broken"
        try:
            sentence = str(json.loads(body)["reason"])
        except (ValueError, KeyError, TypeError):
            sentence = f"the node answered {status}"
        return NodeError(code, sentence)

    def _get(self, path: str, most_bytes: int, timeout: float, method: str = "GET") -> bytes:
        connection = self._connect(timeout)
        try:
            connection.request(method, path, headers=self._headers())
            status, headers, body = self._answer(connection, most_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise NodeError("broken", f"the node hung up: {type(error).__name__}") from None
        finally:
            connection.close()
        if status != 200:
            raise self._refusal(status, headers, body)
        return body

    def listing(self, name: str, timeout: float = 5.0):
        """One document of ``/v1``. Raises ``NodeError``."""
        try:
            return json.loads(self._get("/v1/" + name, ANSWER_MAX_BYTES, timeout))
        except ValueError:
            raise NodeError("broken", "the node's answer is not JSON") from None

    def follow(self, article: str) -> list:
        """The books, after asking the node to follow those of ``article``."""
        query = urlencode({"article": article})
        try:
            return json.loads(self._get("/v1/books?" + query, ANSWER_MAX_BYTES, 5.0, "POST"))
        except ValueError:
            raise NodeError("broken", "the node's answer is not JSON") from None

    def file(self, content: str, timeout: float = 60.0) -> bytes:
        """A stored content."""
        return self._get("/file/" + content, RESULT_MAX_BYTES, timeout)

    def buy(
        self, article: str, before: bytes, scene: str, after: bytes, price: str, wait: float, purchase: Purchase, timeout: float
    ):
        """Buy one work made of ``before``, the file at ``scene`` and ``after``; returns the name of its result.

        Blocks until the result is there. Raises ``NodeError``.
        """
        query = {"wait": "%g" % wait, "once": "1"}
        if price:
            query["price"] = price
        connection = self._connect(timeout)
        try:
            purchase.holds(connection)
            with open(scene, "rb") as file:
                size = len(before) + os.fstat(file.fileno()).st_size + len(after)
                connection.putrequest("POST", "/buy/" + quote(article) + "?" + urlencode(query))
                for name, value in self._headers().items():
                    connection.putheader(name, value)
                connection.putheader("Content-Length", str(size))
                connection.putheader("Content-Type", "application/octet-stream")
                connection.endheaders(before)
                try:
                    while piece := file.read(_PIECE):
                        connection.send(piece)
                    connection.send(after)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # refused before it was read whole; the answer says why
            status, headers, body = self._answer(connection, ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            if purchase.cancelled:
                raise NodeError("cancelled", "the order was taken back") from None
            raise NodeError("broken", f"the node hung up: {type(error).__name__}") from None
        finally:
            connection.close()
        if purchase.cancelled:
            raise NodeError("cancelled", "the order was taken back")
        if status != 303:
            raise self._refusal(status, headers, body)
        content = headers.get("Location", "").rpartition("/")[2]
        if len(content) != 64 or set(content) - set("0123456789abcdef"):
            raise NodeError("broken", "the node did not say where the result is")
        return content
