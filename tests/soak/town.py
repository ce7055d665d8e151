"""The nodes of the soak: ordinary commands on this machine, each with a home and ports that it keeps when it is killed."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from peer.demo.cluster import Cluster, Node, free_port
from wire.errors import LocalFault

NO_ANSWER: Final = (httpx.HTTPError, OSError, LocalFault)
"""What asking a node raises when it is dead, or just dies."""


@dataclass(slots=True)
class Run:
    """One life of one node's process, by this machine's clock in microseconds; ``killed_us`` is None while it lives."""

    name: str
    number: int
    started_us: int
    killed_us: int | None = None


@dataclass(slots=True)
class House:
    """One node and all its runs. ``alive`` is false from just before a kill until the node answers again."""

    node: Node
    runs: list[Run] = field(default_factory=list)
    alive: bool = False

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def run(self) -> Run:
        """The latest life."""
        return self.runs[-1]

    def cpu_s(self) -> float:
        """CPU seconds that the present process has taken."""
        process = self.node.program.process
        if process is None:
            return 0.0
        told = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def journal(self) -> Path:
        return self.node.home / "journal.sqlite"


class Town:
    """Starts, kills and asks. ``paid``: all share one development chain; else they trade in free books only."""

    def __init__(self, cluster: Cluster, client: httpx.AsyncClient, *, nodes: int, paid: bool) -> None:
        self.cluster, self.client, self.paid = cluster, client, paid
        self.houses = [House(self._node(f"node{number}")) for number in range(nodes)]

    def _node(self, name: str) -> Node:
        node = self.cluster.node(name, ("node",), None)
        told = list(node.program.arguments)
        told[told.index("--listen") + 1] = f"127.0.0.1:{free_port()}"
        if not self.paid:
            told[told.index("--chain") + 1] = "none"
        node.program.arguments = tuple(told)
        return node

    async def start(self, house: House, now_us: int) -> None:
        """Start a node, for the first time or again, knowing two others by address."""
        known = [one.node.address for one in self.houses if one is not house and one.alive][:2]
        before = house.node.program.arguments
        house.node.program.arguments = (*before, *(word for address in known for word in ("--bootstrap", address)))
        (house.node.home / "api.json").unlink(missing_ok=True)
        house.runs.append(Run(house.name, len(house.runs), now_us))
        house.node.program.start()
        house.node.program.arguments = before
        await house.node.ready(self.client)
        house.alive = True

    def kill(self, house: House, now_us: int) -> None:
        """End a node as a power cut would."""
        house.alive = False
        house.run.killed_us = now_us
        house.node.program.kill()

    def living(self) -> list[House]:
        return [house for house in self.houses if house.alive]

    async def ask(self, house: House, method: str, path: str, **more: Any) -> Any:
        """One request to a node's local API; returns the JSON. Raises one of ``NO_ANSWER``."""
        base, headers = house.node.reach()
        answer = await self.client.request(method, base + path, headers=headers, **more)
        answer.raise_for_status()
        return answer.json()
