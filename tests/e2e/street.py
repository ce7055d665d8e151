"""A street of nodes for one test: started as ordinary commands, gone when the test ends."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from peer.demo.cluster import Cluster, Node, open_cluster
from peer.journal import read_rows

PATIENCE_S = 90


class Street:
    """A cluster, a client, and the habit of waiting for what must come."""

    def __init__(self, cluster: Cluster, client: httpx.AsyncClient) -> None:
        self.cluster = cluster
        self.client = client

    async def chain(self) -> None:
        """Start the development chain."""
        self.cluster.chain.program.start()
        await self.cluster.chain.ready(self.client)

    async def rpc(self, method: str, *parameters: Any) -> Any:
        """One call of the chain."""
        return await self.cluster.chain.call(self.client, method, *parameters)

    async def node(self, name: str, *command: str, bootstrap: Node | None = None, chain: bool = True) -> Node:
        """A running node."""
        node = self.cluster.node(name, command, bootstrap.address if bootstrap else None)
        if not chain:
            at = node.program.arguments.index("--chain")
            node.program.arguments = (*node.program.arguments[: at + 1], "none", *node.program.arguments[at + 2 :])
        node.program.start()
        await node.ready(self.client)
        return node

    async def until(self, node: Node, what: str, holds: Callable[[Any], Any]) -> Any:
        """Ask ``node`` for ``what`` until ``holds`` is true of it; returns what ``holds`` returned."""
        with trio.fail_after(PATIENCE_S):
            while True:
                found = holds(await node.get(self.client, what))
                if found:
                    return found
                node.program.check()
                await trio.sleep(0.05)

    async def kept(self, node: Node, table: str, holds: Callable[[dict[bytes, bytes]], Any]) -> Any:
        """Look into a table of ``node``'s journal until ``holds`` is true of it; returns what ``holds`` returned."""
        with trio.fail_after(PATIENCE_S):
            while True:
                found = holds(read_rows(node.home / "journal.sqlite", table))
                if found:
                    return found
                node.program.check()
                await trio.sleep(0.05)

    async def buy(self, node: Node, article: str, work: bytes, **parameters: str) -> httpx.Response:
        """Buy through the local API and follow the redirect."""
        base, headers = node.reach()
        known = headers if "price" in parameters else {}
        return await self.client.post(
            f"{base}/buy/{article}", content=work, params=parameters, headers=known, follow_redirects=True
        )


@asynccontextmanager
async def open_street(folder: Path) -> AsyncIterator[Street]:
    """A street whose processes end with the test."""
    async with open_cluster(folder) as cluster, httpx.AsyncClient(timeout=2 * PATIENCE_S) as client:
        yield Street(cluster, client)
