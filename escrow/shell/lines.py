"""One question that bdkpython's Electrum client does not ask: which transactions concern a script, whoever it belongs to.

The library syncs wallets of known descriptors, and says to its own wallets only what it found; an escrow's output is known by its
script alone. So ``blockchain.scripthash.get_history`` is asked here, in Electrum's protocol: one JSON object a line.
"""

import hashlib
import itertools
import json
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from escrow.shell.bdk import Refusal
from escrow.shell.far import Line, printed, too_long
from wire.limits import FAR_HISTORY_MAX, FAR_LINE_MAX_BYTES, FAR_TIMEOUT_S
from wire.ports import ChainFault

_VERSIONS: Final = ["1.4", "1.4.2"]
_CHUNK_BYTES: Final = 1 << 16
_STRAYS_MAX: Final = 64
"""Lines that answer no question of ours before the connection is given up."""


def script_hash(script: bytes) -> str:
    """A script as Electrum's protocol names it: SHA-256, its bytes reversed, in hexadecimal digits."""
    return hashlib.sha256(script).digest()[::-1].hex()


class Histories:
    """Asks one server, at ``tcp://host:port`` or ``ssl://host:port``, over one connection that is made again when it breaks."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place, self._host, self._port = parts.netloc, parts.hostname or "", parts.port or 0
        self._secure = parts.scheme == "ssl"
        self._stream: trio.abc.Stream | None = None
        self._rest = b""
        self._numbers = itertools.count(1)
        self._lock = trio.Lock()

    async def history(self, script: bytes) -> list[Line]:
        """Confirmed transactions in the blocks' order, then waiting ones. Raises ``ChainFault`` and ``Refusal``."""
        told = await self._ask("blockchain.scripthash.get_history", script_hash(script))
        if not isinstance(told, list):
            raise self._garbled("a history that is no list")
        if len(told) > FAR_HISTORY_MAX:
            raise too_long()
        lines = []
        for one in told:
            if not isinstance(one, dict) or type(one.get("height")) is not int or one["height"] < -1:
                raise self._garbled("a history without heights")
            lines.append(Line(printed(one.get("tx_hash")), one["height"] if one["height"] > 0 else None))
        return lines

    async def close(self) -> None:
        """Hang up; the next question calls again."""
        stream, self._stream, self._rest = self._stream, None, b""
        if stream is not None:
            await trio.aclose_forcefully(stream)

    def _garbled(self, what: str) -> ChainFault:
        return ChainFault("chain-garbled", f"the chain at {self._place} answers something else than was asked: {what}")

    async def _ask(self, method: str, *parameters: Any) -> Any:
        """One answer. Raises ``ChainFault`` and ``Refusal``."""
        try:
            with trio.fail_after(FAR_TIMEOUT_S):
                async with self._lock:
                    return await self._attempt(method, *parameters)
        except trio.TooSlowError:
            reason = f"no answer in {FAR_TIMEOUT_S} s"
        except (OSError, EOFError, trio.BrokenResourceError) as error:
            reason = str(error.__cause__ or error) or type(error).__name__
        raise ChainFault("chain-down", f"the chain at {self._place} does not answer: {reason[:200]}")

    async def _attempt(self, method: str, *parameters: Any) -> Any:
        """One answer. A connection that broke since the last question is made again once; none is kept after a fault."""
        try:
            if self._stream is not None:
                try:
                    return await self._exchange(method, *parameters)
                except (trio.BrokenResourceError, EOFError):
                    await self.close()
            await self._connect()
            return await self._exchange(method, *parameters)
        except Refusal:
            raise
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.close()
            raise

    async def _connect(self) -> None:
        if self._secure:
            context = ssl.create_default_context()
            secured = await trio.open_ssl_over_tcp_stream(self._host, self._port, ssl_context=context)
            self._stream = secured
            await secured.do_handshake()
        else:
            self._stream = await trio.open_tcp_stream(self._host, self._port)
        await self._exchange("server.version", "bitwrk", _VERSIONS)

    async def _exchange(self, method: str, *parameters: Any) -> Any:
        number = next(self._numbers)
        asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": list(parameters)}
        assert self._stream is not None
        await self._stream.send_all(json.dumps(asked).encode() + b"\n")
        for _ in range(_STRAYS_MAX):
            answer = await self._answer()
            if answer.get("id") != number:
                continue
            error = answer.get("error")
            if error is not None:
                raise Refusal(0, str(error.get("message") if isinstance(error, dict) else error))
            return answer.get("result")
        raise self._garbled("many lines and no answer")

    async def _answer(self) -> dict[str, Any]:
        """The next line. Raises ``EOFError`` at the end, ``ChainFault`` for what is no JSON object or too long."""
        assert self._stream is not None
        pieces, size = [self._rest], len(self._rest)
        while b"\n" not in pieces[-1]:
            piece = await self._stream.receive_some(_CHUNK_BYTES)
            if not piece:
                raise EOFError("the server hung up")
            pieces.append(bytes(piece))
            size += len(piece)
            if size > FAR_LINE_MAX_BYTES:
                raise self._garbled(f"a line of more than {FAR_LINE_MAX_BYTES} bytes")
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._garbled("no JSON object")
        return answer
