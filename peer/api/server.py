"""Serving the local API on the loopback interface with Hypercorn's trio worker.

Each connection is Hypercorn's ``TCPServer``; accepting is ours, for four reasons. An error that escapes one connection must not
end the node. Connections are counted and bounded. Hypercorn shields its writes from cancellation, so a client that stopped
reading could hold up the end of the process for ever: at the end, connections that outlast the grace are closed under it. And
only HTTP/1.1 is spoken: in HTTP/2 a client that goes away at the right moment leaves a task waiting for ever.
"""

import errno
import logging
import os
import socket
from functools import partial
from typing import Final, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from peer.api.gate import Gate
from peer.api.routes import make_app
from peer.api.service import NodeService
from wire.errors import LocalFault
from wire.limits import API_CONNECTIONS_MAX, API_IDLE_CONNECTION_S, API_STOP_GRACE_S

_LOG: Final = logging.getLogger("bitwrk.api")
_BACKLOG: Final = 128


def bind_loopback(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1. Port 0 takes any free one. Raises ``LocalFault`` when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Elsewhere this option would let two programs share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise LocalFault(
                "port-in-use", f"port {port} of this machine is in use; choose another with --api-port, or 0 for any free one"
            ) from None
        reason = (error.strerror or "unknown").lower()
        raise LocalFault(
            "port-refused", f"port {port} of this machine cannot be had: {reason}; choose another with --api-port"
        ) from None
    except OverflowError:
        listener.close()
        raise LocalFault("port-refused", f"{port} is not a port") from None
    return listener


def _hypercorn_config() -> Config:
    config = Config()
    config.errorlog = _LOG
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = API_IDLE_CONNECTION_S
    return config


class _Http1(H11Protocol):
    """HTTP/1.1 and nothing to change over to; a wish for HTTP/2 is ignored, as the standard allows."""

    async def _check_protocol(self, event: h11.Request) -> None:
        # h11 stops reading while a wish to change over is open, and then nobody would notice the client hanging up.
        if isinstance(self.connection, h11.Connection):
            self.connection._cstate.pending_switch_proposals.clear()


class _Connection(TCPServer):
    """One connection without TLS that speaks ``_Http1``."""

    async def run(self) -> None:
        """Serve it to its end."""
        plain = cast(trio.SocketStream, self.stream)
        try:
            host, port = plain.socket.getsockname()
            async with TaskGroup() as task_group:
                self._task_group = task_group
                self.protocol = _Http1(  # type: ignore[assignment]  # the same interface, without the wrapper that changes over
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState({}),
                    False,
                    None,
                    (host, port),
                    self.protocol_send,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
        except OSError:
            pass  # the client is gone
        finally:
            await self._close()


class _Connections:
    """The open connections of one server."""

    def __init__(self, gate: Gate) -> None:
        self._app = ASGIWrapper(cast(ASGIFramework, gate))
        self._config = _hypercorn_config()
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._none_left = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Never raises."""
        if len(self._streams) >= API_CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        self._streams.add(stream)
        try:
            # TCPServer is typed for TLS streams and takes plain ones.
            await _Connection(self._app, self._config, self._context, ConnectionState({}), stream)  # type: ignore[arg-type]
        except Exception:
            _LOG.exception("a connection of the local API failed")
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._none_left.set()

    async def end(self) -> None:
        """Let answers be finished for a moment, then close what is still open."""
        await self._context.terminated.set()
        if self._streams:
            self._none_left = trio.Event()
            with trio.move_on_after(API_STOP_GRACE_S):
                await self._none_left.wait()
        for stream in tuple(self._streams):
            await trio.aclose_forcefully(stream)


async def serve_api(
    service: NodeService,
    listener: socket.socket,
    token: str,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stop`` is set or we are cancelled; takes over ``listener``, and starts with its port.

    Returns when all connections have ended: at most ``API_STOP_GRACE_S`` later, and what the service takes to be cancelled.
    """
    port: int = listener.getsockname()[1]
    connections = _Connections(Gate(make_app(service, stop), token=token, port=port))
    accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async with trio.open_nursery() as handlers:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.serve_listeners, connections.serve, [accepting], handler_nursery=handlers))
                task_status.started(port)
                await stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            # Also when we are cancelled: a connection whose write is shielded ends only by being closed.
            with trio.CancelScope(shield=True):
                await accepting.aclose()
                await connections.end()
        # What is left is blocked in the application, not on its connection.
        handlers.cancel_scope.cancel()
