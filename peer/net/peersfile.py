"""Peers that were good to know last time, so a node finds back in without its first address. Losing the file costs nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from peer.net.addresses import BadAddress, split_address
from wire.limits import PEERS_MAX

_NAME: Final = "peers"


def load_peers(home: Path) -> tuple[str, ...]:
    """The full addresses kept in ``home``; lines that are not addresses are passed over."""
    try:
        lines = (home / _NAME).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    kept: list[str] = []
    for line in lines[:PEERS_MAX]:
        try:
            split_address(line)
        except BadAddress:
            continue
        kept.append(line)
    return tuple(kept)


def save_peers(home: Path, addresses: Iterable[str]) -> bool:
    """Keep full addresses in ``home``; whether that worked."""
    fresh = home / (_NAME + ".new")
    try:
        fresh.write_text("".join(address + "\n" for address in list(addresses)[:PEERS_MAX]))
        fresh.replace(home / _NAME)
    except OSError:
        return False
    return True
