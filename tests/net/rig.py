"""Hosts, and ways to misbehave towards them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from libp2p.network.stream.exceptions import StreamEOF, StreamError

from peer.net.host import Net, open_host
from wire.keys import SecretKey
from wire.network import REGTEST
from wire.ports import Stream

ECHO = "/bitwrk/test/echo/1"
WAIT_S = 8.0


def key(number: int) -> SecretKey:
    return SecretKey(number.to_bytes(32, "big"))


@asynccontextmanager
async def hosts(count: int, *, first: int = 1) -> AsyncIterator[list[Net]]:
    """``count`` hosts on loopback that know nothing of each other."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_host(key=key(first + number), network=REGTEST)) for number in range(count)]


async def join(*nets: Net) -> None:
    """Connect all of ``nets`` to the first."""
    for net in nets[1:]:
        await net.connect(nets[0].addresses()[0])


async def until(holds: Callable[[], object]) -> None:
    """Wait until ``holds()``; a test that waits in vain fails."""
    with trio.fail_after(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what it waits for is a counter, which tells nobody
            await trio.sleep(0.005)


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def still_serves(server: Net, first: int = 200) -> None:
    """A stranger that comes now is served: the proof that an attack did nothing."""
    server.serve(ECHO, echo)
    async with open_host(key=key(first), network=REGTEST) as honest:
        with trio.fail_after(WAIT_S):
            await honest.connect(server.addresses()[0])
            stream = await honest.open(server.me, ECHO)
            await stream.send(b"are you there")
            assert await stream.receive() == b"are you there"


def port_of(net: Net) -> int:
    return int(net.addresses()[0].split("/")[4])


def counter(net: Net, code: str) -> int:
    return net.statistics().counters.get(code, 0)


async def until_reset(stream: Any) -> None:
    """Read a libp2p stream until it fails or ends."""
    with trio.fail_after(WAIT_S):
        try:
            while await stream.read(1000):
                pass
        except (StreamError, StreamEOF):
            return


async def raw_stream(net: Net, to: Net, protocol: str) -> Any:
    """A libp2p stream with no framing of ours around it."""
    assert net._engine is not None
    return await net._engine.open_raw(to.me, protocol)


def muxer(net: Net, to: Net) -> Any:
    """The multiplexer of the connection from ``net`` to ``to``."""
    from libp2p.peer.id import ID

    assert net._engine is not None
    return net._engine.swarm.get_connections(ID(to.me))[0].muxed_conn
