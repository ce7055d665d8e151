"""Array models against exact ones: an event queue for gossip, a plain walk for look-ups, and the world's own latency classes."""

import numpy as np
import pytest

from simulations.models.gossip import NEVER, Roads, Spread, broadcast, exact, pair_numbers
from simulations.models.kademlia import Network, Rules, look_up
from simulations.models.meshes import made, mesh, regular
from simulations.world.latency import CLASSES, pair_class
from wire.errors import Refused


@pytest.mark.parametrize("kind", ["regular", "mesh"])
@pytest.mark.parametrize("seed", range(4))
def test_arrival_times_are_those_of_an_event_queue(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    links = made(kind, 150, 6, rng)
    spread = Spread(size_bytes=50_000, uplink_least_mbps=20, uplink_most_mbps=200, processing_ms=1, loss=0.1 * (seed % 2))
    roads = Roads(spread, 150, rng)
    away = rng.random(150) < 0.2 * (seed // 2)
    source = int(np.flatnonzero(~away)[0])
    assert np.array_equal(broadcast(links, roads, source, away).arrival_us, exact(links, roads, source, away))


def test_the_dead_hear_nothing_and_everybody_else_does() -> None:
    rng = np.random.default_rng(1)
    links = regular(2_000, 8, rng)
    away = rng.random(2_000) < 0.1
    away[0] = False
    found = broadcast(links, Roads(Spread(), 2_000, rng), 0, away)
    assert np.all(found.arrival_us[away] == NEVER)
    assert np.mean(found.arrival_us[~away] < NEVER) > 0.99


def test_the_pairs_of_the_arrays_are_the_pairs_of_the_world() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 10**6, 500), rng.integers(0, 10**6, 500)
    salt = 12_345
    theirs = [pair_class(int(a), int(b), salt) for a, b in zip(one, other, strict=True)]
    assert list(pair_numbers(one, other, salt) % np.uint64(CLASSES)) == theirs
    assert list(pair_numbers(other, one, salt) % np.uint64(CLASSES)) == theirs


def test_meshes_are_symmetric() -> None:
    for links in (regular(300, 6, np.random.default_rng(1)), mesh(300, 6, np.random.default_rng(1))):
        pairs = {(node, int(there)) for node in range(300) for there in links[node] if there >= 0}
        assert all((there, node) in pairs for node, there in pairs)
        assert all(node != there for node, there in pairs)
    with pytest.raises(Refused):
        made("ring", 10, 4, np.random.default_rng(1))
    with pytest.raises(Refused):
        regular(10, 3, np.random.default_rng(1))


def test_prefix_ranges_and_nearest_are_exact() -> None:
    rng = np.random.default_rng(5)
    network = Network(400, Rules(stale=0.2), rng)
    targets = network.ids[rng.integers(0, network.ids.size, 50)] ^ np.uint64(12_345_678)
    for bits in (0, 1, 5, 12, 63):
        low, high = network.prefix_range(targets, np.full(50, bits))
        for row, target in enumerate(targets):
            inside = [place for place, one in enumerate(network.ids) if (int(one) ^ int(target)) >> (64 - bits) == 0]
            assert inside == list(range(low[row], high[row]))
    nearest = network.nearest(targets)
    for row, target in enumerate(targets):
        by_distance = sorted((int(network.ids[place]) ^ int(target), int(place)) for place in network.live)
        brute = [place for _, place in by_distance[:20]]
        assert sorted(brute) == sorted(nearest[row])


def test_an_answer_names_real_nodes_each_once_and_nearer_ones_first() -> None:
    rng = np.random.default_rng(6)
    network = Network(3_000, Rules(), rng)
    nodes = network.live[rng.integers(0, network.live.size, 200)]
    targets = rng.integers(0, 1 << 63, 200, dtype=np.uint64)
    for row, named in enumerate(network.answers(nodes, targets)):
        known = [int(one) for one in named if one >= 0]
        assert len(known) == 20 == len(set(known))
        ours = int(network.ids[nodes[row]]) ^ int(targets[row])
        inside = [one for one in known if (int(network.ids[one]) ^ int(targets[row])).bit_length() < ours.bit_length()]
        assert inside == known[: len(inside)]


def test_a_small_network_is_known_whole() -> None:
    """With fewer nodes than a bucket holds, everybody knows everybody: one hop, and the k nearest are all found."""
    rng = np.random.default_rng(7)
    walks = look_up(Network(40, Rules(k=40), rng), 50, rng, width=96)
    assert np.all(walks.nearest == 40)
    assert np.all(walks.discovered_hops <= 1)


def test_hops_grow_slowly_and_timeouts_come_from_the_gone() -> None:
    def walks(nodes: int, **rules: float) -> tuple[float, float, float]:
        rng = np.random.default_rng(8)
        found = look_up(Network(nodes, Rules(**rules), rng), 1_000, rng)  # type: ignore[arg-type]
        return float(found.total_hops.mean()), float(found.timeouts.mean()), float(found.time_us.mean())

    small, large, stale = walks(1_000), walks(30_000), walks(30_000, stale=0.3)
    assert 1.5 < small[0] < large[0] < 4
    assert small[1] == large[1] == 0
    assert stale[0] > large[0]
    assert stale[1] > 1
    assert stale[2] > 5 * large[2]


def test_a_million_nodes_fit_in_a_second_or_so() -> None:
    """No timed assertion; that it ends within the test's limit, and is whole, is the point."""
    rng = np.random.default_rng(9)
    walks = look_up(Network(1_000_000, Rules(), rng), 500, rng)
    assert 3 < walks.total_hops.mean() < 5
    found = broadcast(regular(1_000_000, 8, rng), Roads(Spread(), 1_000_000, rng), 0)
    assert np.all(found.arrival_us < NEVER)
