# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scene needs besides its own file, and what of that would be missing on another machine."""

from dataclasses import dataclass

NOT_PACKABLE = {
    "movie": "movies are not sent; render them to single images first",
    "sequence": "image sequences are not sent; pack single images or bake them",
    "cache": "simulation caches are not sent; bake them into the file",
    "volume": "volume files are not sent",
}


@dataclass(frozen=True)
class Asset:
    """One file that the scene refers to. ``kind`` is image, library, font, sound, or one that cannot be packed."""

    kind: str
    name: str
    path: str
    packed: bool
    exists: bool


def missing(assets: list) -> list:
    """A sentence for everything that a seller would not have, sorted and each only once."""
    found = set()
    for asset in assets:
        if asset.kind in NOT_PACKABLE:
            found.add(f"{asset.kind} '{asset.name}': {NOT_PACKABLE[asset.kind]}")
        elif not asset.packed and not asset.exists:
            found.add(f"{asset.kind} '{asset.name}': there is no file {asset.path or '(no path)'}")
    return sorted(found)
