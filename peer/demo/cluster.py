"""The processes of the demonstration: one development chain and some nodes, each with a home and ports of its own.

All are ordinary commands, started as a person would start them. Nothing here knows what a node does inside.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from peer.home import Home
from wire.account import account_of
from wire.errors import LocalFault

START_TIMEOUT_S: Final = 60
STOP_TIMEOUT_S: Final = 10
POLL_S: Final = 0.1


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Program:
    """One running command: its name, how it was started, and where its words go."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as words:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "peer.cli", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def check(self) -> None:
        """Raise when it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise LocalFault("demo-process", f"{self.name} ended with {self.process.returncode}: {last[0]}")


@dataclass(slots=True)
class Node:
    """A node of the demonstration and the way to its local API."""

    program: Program
    home: Path
    account: str = ""
    address: str = ""

    @property
    def name(self) -> str:
        """What the people watching call it."""
        return self.program.name

    async def ready(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """Wait until its local API answers, and return its status."""
        with trio.move_on_after(START_TIMEOUT_S):
            while True:
                self.program.check()
                try:
                    status: dict[str, Any] = await self.get(client, "status")
                except (httpx.HTTPError, LocalFault, OSError):
                    await trio.sleep(POLL_S)
                else:
                    self.account = status["account"]
                    self.address = status["addresses"][0]
                    return status
        raise LocalFault("demo-start", f"{self.name} did not start in {START_TIMEOUT_S} s; see {self.program.log}")

    def reach(self) -> tuple[str, dict[str, str]]:
        """The address of its local API and the headers that open it."""
        home = Home(self.home)
        return f"http://127.0.0.1:{home.api_port()}", {"Authorization": f"Bearer {home.read_token()}"}

    async def get(self, client: httpx.AsyncClient, what: str) -> Any:
        """One document of its local API."""
        base, headers = self.reach()
        answer = await client.get(f"{base}/v1/{what}", headers=headers)
        answer.raise_for_status()
        return answer.json()

    async def close_channels(self, client: httpx.AsyncClient, reason: str) -> Any:
        """Ask it to close its channels."""
        base, headers = self.reach()
        answer = await client.post(f"{base}/v1/channels/close", headers=headers, params={"reason": reason})
        answer.raise_for_status()
        return answer.json()


class DevChain:
    """The development chain's RPC, in the dialect of Bitcoin Core."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.url = f"http://127.0.0.1:{port}"

    async def call(self, client: httpx.AsyncClient, method: str, *parameters: Any) -> Any:
        """One call; raises ``LocalFault`` with the chain's words."""
        body = {"jsonrpc": "1.0", "id": 1, "method": method, "params": list(parameters)}
        answer = (await client.post(self.url, json=body)).json()
        if answer.get("error"):
            raise LocalFault("demo-chain", f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def ready(self, client: httpx.AsyncClient) -> None:
        """Wait until it answers."""
        with trio.move_on_after(START_TIMEOUT_S):
            while True:
                self.program.check()
                try:
                    await self.call(client, "getblockcount")
                except (httpx.HTTPError, OSError, ValueError):
                    await trio.sleep(POLL_S)
                else:
                    return
        raise LocalFault("demo-start", f"the development chain did not start; see {self.program.log}")


class Cluster:
    """All processes of one demonstration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs: list[Program] = []
        port = free_port()
        self.chain = DevChain(self._program("chain", ("devchain", "--home", str(folder / "chain"), "--port", str(port))), port)

    def _program(self, name: str, arguments: tuple[str, ...]) -> Program:
        program = Program(name=name, arguments=arguments, log=self.folder / f"{name}.log")
        self._programs.append(program)
        return program

    def node(self, name: str, command: Sequence[str], bootstrap: str | None) -> Node:
        """A node that has not been started yet; its key is made here, so that its account is known."""
        home = self.folder / name
        common = ["--home", str(home), "--api-port", "0", "--listen", "127.0.0.1:0", "--chain", f"core:{self.chain.url}"]
        known = ["--bootstrap", bootstrap] if bootstrap else []
        node = Node(program=self._program(name, (*command, *common, *known, "--log-level", "info")), home=home)
        node.account = account_of(Home.at(home).key().public)
        return node

    def kill_all(self) -> None:
        """End what still runs, politely first."""
        running = [one for one in self._programs if one.process is not None and one.process.poll() is None]
        for program in reversed(running):
            if program.process is not None:
                program.process.terminate()
        for program in reversed(running):
            if program.process is not None:
                try:
                    program.process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    program.kill()


@asynccontextmanager
async def open_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster whose processes are gone when this ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.kill_all()
