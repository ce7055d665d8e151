"""Plans of the array models, as a scenario file gives them. Without numpy, so that listing scenarios is quick."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastPlan:
    """Broadcasts over random meshes: for each size (bytes) ``messages`` of them, each from a random node.

    ``mesh`` is ``regular`` or ``mesh``; delays in milliseconds in five classes; uplinks in Mbit/s, 0 without bound.
    """

    nodes: int = 2_000
    mesh: str = "mesh"
    degree: int = 8
    sizes: tuple[int, ...] = (1_000,)
    messages: int = 1
    least_ms: float = 40.0
    most_ms: float = 130.0
    uplink_least_mbps: float = 0.0
    uplink_most_mbps: float = 0.0
    processing_ms: float = 0.0
    loss: float = 0.0
    away: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupPlan:
    """Kademlia look-ups of random targets: for each share of stale table entries ``lookups`` of them."""

    nodes: int = 16_000
    lookups: int = 10_000
    k: int = 20
    alpha: int = 3
    beta: int = 3
    stale: tuple[float, ...] = (0.0,)
    missing: float = 0.0
    least_ms: float = 40.0
    most_ms: float = 130.0
    timeout_ms: float = 5_000.0
