"""The chain a node settles on, as its settings name it, and the wallet there."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from escrow.shell.core_rpc import CoreChain
from escrow.shell.kernel import KernelChain
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from peer.config import Settings
from peer.home import Home
from wire.errors import LocalFault
from wire.keys import SecretKey
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
        shared = settings.chain.kind == "core"
        yield Money(chain=chain, wallet=wallet, watcher=Watcher(chain), instance=instance, shared=shared)


@asynccontextmanager
async def open_chain(settings: Settings, home: Home) -> AsyncIterator[KernelChain | CoreChain]:
    """The chain that the settings name. Raises ``LocalFault`` when they name none."""
    choice = settings.chain
    if settings.network.real_money and not settings.allow_mainnet:
        raise LocalFault("mainnet", "real money needs allow_mainnet = true and a cap in the settings")
    if choice.kind == "none":
        raise LocalFault("no-chain", "the settings name no chain; give --chain")
    if choice.kind == "kernel":
        async with KernelChain.open(home.folder / "chain", settings.network) as own:
            yield own
    else:
        async with CoreChain.open(choice.url, settings.network) as core:
            yield core


async def named_instance(chain: Chain) -> bytes:
    """The chain's name; one that has only just been started is given a moment."""
    for _ in range(CHAIN_ATTEMPTS):
        try:
            return await chain.instance()
        except ChainFault as fault:
            _LOG.warning("waiting for the chain: %s", fault.sentence)
            await trio.sleep(CHAIN_PAUSE_S)
    return await chain.instance()
