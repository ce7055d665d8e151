"""The chain a node settles on, as its settings name it, and the wallet there."""

import logging
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from escrow.shell.checked import CheckedChain, ComparedChain
from escrow.shell.core_rpc import CoreChain
from escrow.shell.electrum import ElectrumChain
from escrow.shell.esplora import EsploraChain
from escrow.shell.kernel import KernelChain
from escrow.shell.recovery import HistoryChain
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from peer.config import ChainChoice, Settings
from peer.home import Home
from wire.errors import LocalFault
from wire.keys import SecretKey
from wire.limits import CHAIN_STILL_S, FAR_WATCH_INTERVAL_MS, WATCH_INTERVAL_MS
from wire.network import Network
from wire.ports import Chain, ChainFault, Journal

_LOG: Final = logging.getLogger("bitwrk.money")
CHAIN_ATTEMPTS: Final = 15
CHAIN_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Money:
    """The chain we settle on and our wallet there."""

    chain: Chain
    wallet: KeyWallet
    watcher: Watcher
    instance: bytes
    shared: bool


@asynccontextmanager
async def open_money(settings: Settings, home: Home, key: SecretKey, journal: Journal) -> AsyncIterator[Money | None]:
    """The chain that the settings name, or None."""
    if settings.chain.kind == "none":
        yield None
        return
    async with open_chain(settings, home) as chain:
        instance = await named_instance(chain)
        wallet = await KeyWallet.open(key, chain, journal, settings.network)
        regtest = settings.network.bitcoin == "regtest"
        still_s = math.inf if regtest else CHAIN_STILL_S
        theirs = settings.chain.kind in ("esplora", "electrum") and not regtest
        watcher = Watcher(chain, FAR_WATCH_INTERVAL_MS if theirs else WATCH_INTERVAL_MS, still_s=still_s)
        shared = settings.chain.kind != "kernel"
        yield Money(chain=chain, wallet=wallet, watcher=watcher, instance=instance, shared=shared)


@asynccontextmanager
async def open_chain(settings: Settings, home: Home) -> AsyncIterator[KernelChain | CheckedChain]:
    """The chain that the settings name; any but our own is checked, and compared with a second where there is one. Raises
    ``LocalFault`` when they name none.
    """
    choice = settings.chain
    if settings.network.real_money and not settings.allow_mainnet:
        raise LocalFault("mainnet", "real money needs allow_mainnet = true and a cap in the settings")
    if choice.kind == "none":
        raise LocalFault("no-chain", "the settings name no chain; give --chain")
    if choice.kind == "kernel":
        async with KernelChain.open(home.folder / "chain", settings.network) as own:
            yield own
    else:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(open_far(choice, settings.network))
            if settings.chain_second is None:
                yield CheckedChain(first, settings.network)
            else:
                second = await stack.enter_async_context(open_far(settings.chain_second, settings.network))
                yield ComparedChain(first, second, settings.network)


def open_far(choice: ChainChoice, network: Network) -> AbstractAsyncContextManager[HistoryChain]:
    """The unchecked chain behind a server that the settings name. Raises ``LocalFault`` when a library for it is missing."""
    match choice.kind:
        case "core":
            return CoreChain.open(choice.url, network)
        case "esplora":
            return EsploraChain.open(choice.url, network)
        case "electrum":
            return ElectrumChain.open(choice.url, network)
    raise LocalFault("no-chain", f"a chain of the kind {choice.kind} is behind no server")


async def named_instance(chain: Chain) -> bytes:
    """The chain's name; one that has only just been started is given a moment."""
    for _ in range(CHAIN_ATTEMPTS):
        try:
            return await chain.instance()
        except ChainFault as fault:
            _LOG.warning("waiting for the chain: %s", fault.sentence)
            await trio.sleep(CHAIN_PAUSE_S)
    return await chain.instance()
