"""A stage for the dashboard: a development chain, sellers and a buyer, all of them ordinary processes on this machine.

Tests of the dashboard run on asyncio, because Textual does; the cluster of the demonstration is trio's. They meet here: every
method is plain and blocking, and what the processes do goes on between the calls.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from peer.demo.cluster import Cluster, Node

PATIENCE_S: Final = 60
POLL_S: Final = 0.05


class Stage:
    """The processes of one test, and a plain way to ask them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.cluster = Cluster(folder)
        self.client = httpx.Client(timeout=PATIENCE_S, trust_env=False)

    def chain(self) -> None:
        """Start the development chain."""
        self.cluster.chain.program.start()

        async def ready() -> None:
            async with httpx.AsyncClient() as client:
                await self.cluster.chain.ready(client)

        trio.run(ready)

    def rpc(self, method: str, *parameters: Any) -> Any:
        """One call of the chain."""

        async def call() -> Any:
            async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
                return await self.cluster.chain.call(client, method, *parameters)

        return trio.run(call)

    def node(self, name: str, *command: str, bootstrap: Node | None = None, chain: bool = True) -> Node:
        """A running node."""
        node = self.cluster.node(name, command, bootstrap.address if bootstrap else None)
        if not chain:
            at = node.program.arguments.index("--chain")
            node.program.arguments = (*node.program.arguments[: at + 1], "none", *node.program.arguments[at + 2 :])
        self.start(node)
        return node

    def start(self, node: Node) -> None:
        """Start a node, or start it again, and wait until it answers."""
        node.program.start()

        async def ready() -> None:
            async with httpx.AsyncClient() as client:
                await node.ready(client)

        trio.run(ready)

    def ask(self, node: Node, method: str, path: str, **said: Any) -> httpx.Response:
        """One request to the node's local API, with the token."""
        base, headers = node.reach()
        return self.client.request(method, base + path, headers=headers, **said)

    def read(self, node: Node, what: str) -> Any:
        """One document of the node's local API."""
        return self.ask(node, "GET", f"/v1/{what}").raise_for_status().json()

    def until(self, node: Node, what: str, holds: Callable[[Any], Any]) -> Any:
        """Ask ``node`` for ``what`` until ``holds`` is true of it; returns what ``holds`` returned."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := holds(self.read(node, what))):
            node.program.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{node.name} never showed the {what} that were waited for")
            time.sleep(POLL_S)
        return found

    def rich(self, node: Node, satoshi: int) -> None:
        """Give a node coins, and wait until it knows."""
        self.rpc("devfaucet", self.read(node, "status")["address"], satoshi)
        self.until(node, "account", lambda account: account["balance_sat"] >= satoshi)

    def close(self) -> None:
        """End all processes."""
        self.client.close()
        self.cluster.kill_all()


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """A stage whose processes are gone when this ends, however it ends."""
    stage = Stage(folder)
    try:
        yield stage
    finally:
        stage.close()
