"""BLAKE3 with a derive-key context per purpose and network, so no hash or signature of one serves another.

The context string is ``bitwrk/1/<network>/<purpose>``; with ``network`` empty for content, which is the same everywhere.
Source: the BLAKE3 paper, section 2.3 (derive_key mode).
"""

import functools
from typing import Final

from blake3 import blake3

CONTENT: Final = "bitwrk/1//content"


@functools.lru_cache(maxsize=256)
def context(network: str, purpose: str) -> str:
    """The derive-key context of one purpose on one network."""
    return f"bitwrk/1/{network}/{purpose}"


@functools.lru_cache(maxsize=256)
def _seed(of: str) -> blake3:
    return blake3(derive_key_context=of)


def digest(of: str, *parts: bytes) -> bytes:
    """32 bytes: BLAKE3 in derive-key mode with context ``of`` over the parts, each fixed-length or the last one."""
    hasher = _seed(of).copy()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


@functools.lru_cache(maxsize=256)
def _purpose(network: str, purpose: str) -> blake3:
    return _seed(context(network, purpose))


def digest_for(network: str, purpose: str, data: bytes) -> bytes:
    """``digest(context(network, purpose), data)``, a little quicker, for what is done with every message."""
    hasher = _purpose(network, purpose).copy()
    hasher.update(data)
    return hasher.digest()


def content_id(data: bytes | memoryview) -> bytes:
    """32 bytes naming ``data`` by what it is."""
    hasher = _seed(CONTENT).copy()
    hasher.update(data)
    return hasher.digest()


def plain(data: bytes) -> bytes:
    """32 bytes of unkeyed BLAKE3, where ``MARKET`` asks for exactly that."""
    return blake3(data).digest()
