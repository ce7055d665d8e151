"""Random meshes as one array of neighbours: row i holds the neighbours of node i, -1 where there is none.

``regular`` joins a node to the images and pre-images of itself under random permutations: every node has exactly ``degree``
links, up to the few that fall together. ``mesh`` gives every node links to random others until it has ``degree / 2`` of its
own, so degrees vary as they do in a gossip mesh.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire.errors import Refused

Links = NDArray[np.int32]
NOBODY: Final = np.int32(-1)


def regular(nodes: int, degree: int, rng: np.random.Generator) -> Links:
    """A random mesh of even ``degree``: permutations and their inverses. Self-links are taken out."""
    if degree < 2 or degree % 2:
        raise Refused("bad-degree", "the degree of a regular mesh is even and at least 2")
    links = np.empty((nodes, degree), dtype=np.int32)
    here = np.arange(nodes, dtype=np.int32)
    for column in range(0, degree, 2):
        there = rng.permutation(nodes).astype(np.int32)
        links[:, column] = there
        links[there, column + 1] = here
    links[links == here[:, None]] = NOBODY
    return links


def mesh(nodes: int, degree: int, rng: np.random.Generator) -> Links:
    """Every node opens ``degree // 2`` links to random others; both ends keep them. Mean degree ``degree``, degrees vary."""
    own = max(1, degree // 2)
    opener = np.repeat(np.arange(nodes, dtype=np.int32), own)
    target = rng.integers(0, nodes, size=opener.size, dtype=np.int32)
    keep = opener != target
    ends = np.concatenate([opener[keep], target[keep]])
    others = np.concatenate([target[keep], opener[keep]])
    order = np.argsort(ends, kind="stable")
    ends, others = ends[order], others[order]
    first = np.searchsorted(ends, np.arange(nodes + 1))
    place = np.arange(ends.size) - first[ends]
    links = np.full((nodes, int(np.diff(first).max())), NOBODY, dtype=np.int32)
    links[ends, place] = others
    return links


def made(kind: str, nodes: int, degree: int, rng: np.random.Generator) -> Links:
    """The mesh called ``kind``."""
    if kind == "regular":
        return regular(nodes, degree, rng)
    if kind == "mesh":
        return mesh(nodes, degree, rng)
    raise Refused("bad-mesh", f"there is no mesh {kind!r}; use regular or mesh")
