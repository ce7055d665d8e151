"""Vectors, and where rays meet spheres and the floor. A vector array has shape (3, rays) and type float32."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from peer.workers.rays.dice import F32
from peer.workers.rays.request import THOUSAND, Kind, Point, Scene

I64 = npt.NDArray[np.int64]
Triple = tuple[float, float, float]

NOTHING: Final = -1
NEAR: Final = np.float32(1e-3)  # a ray does not meet the surface it starts from
HORIZON: Final = np.float32(1e6)
_CLUSTER_MOST: Final = 11


def dot(a: F32, b: F32) -> F32:
    """The inner product of each pair, added in a fixed order."""
    product: F32 = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def unit(a: F32) -> F32:
    """Each vector at length one."""
    return a / np.sqrt(dot(a, a))


def frame(n: F32) -> tuple[F32, F32]:
    """Two vectors that complete each unit vector to a basis (Duff et al., "Building an Orthonormal Basis, Revisited")."""
    sign = np.where(n[2] >= 0, np.float32(1), np.float32(-1))
    a = -1 / (sign + n[2])
    b = n[0] * n[1] * a
    first = np.stack([1 + sign * n[0] * n[0] * a, sign * b, -sign * n[0]])
    return first, np.stack([b, sign + n[1] * n[1] * a, -n[1]])


def triple(point: Point) -> Triple:
    """A place in units."""
    return point.x / THOUSAND, point.y / THOUSAND, point.z / THOUSAND


@dataclass(frozen=True, slots=True)
class Ball:
    """A sphere as the tracer wants it: Python floats mix with float32 arrays without widening them."""

    index: int
    centre: Triple
    radius: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Cluster:
    """A ball around everything inside, tried first; and inside either balls or smaller clusters."""

    around: Ball
    balls: tuple[Ball, ...]
    parts: "tuple[Cluster, ...]"


def balls_of(scene: Scene) -> tuple[Ball, ...]:
    """The scene's spheres."""
    return tuple(
        Ball(index, triple(one.centre), one.radius / THOUSAND, scene.materials[one.material].kind)
        for index, one in enumerate(scene.spheres)
    )


def cluster_of(balls: tuple[Ball, ...]) -> Cluster:
    """The balls as a tree of neighbours, halved along their widest side until a group is small."""
    around = _around(balls)
    if len(balls) <= _CLUSTER_MOST:
        return Cluster(around, balls, ())
    spans = [max(one.centre[axis] for one in balls) - min(one.centre[axis] for one in balls) for axis in range(3)]
    widest = spans.index(max(spans))
    ordered = sorted(balls, key=lambda one: (one.centre[widest], one.index))
    half = len(ordered) // 2
    return Cluster(around, (), (cluster_of(tuple(ordered[:half])), cluster_of(tuple(ordered[half:]))))


def _around(balls: tuple[Ball, ...]) -> Ball:
    low = [min((one.centre[axis] - one.radius for one in balls), default=0.0) for axis in range(3)]
    high = [max((one.centre[axis] + one.radius for one in balls), default=0.0) for axis in range(3)]
    middle = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2)
    reach = 0.0
    for one in balls:
        x, y, z = (one.centre[axis] - middle[axis] for axis in range(3))
        reach = max(reach, math.sqrt(x * x + y * y + z * z) + one.radius)
    return Ball(NOTHING, middle, reach * 1.001 + 0.001, Kind.MATT)


def meet(ball: Ball, origin: F32, toward: F32) -> tuple[F32, F32]:
    """For each ray: where along it the ball's centre is nearest, and radius squared less that nearest distance squared.

    The distance is taken of the vector itself and not as a difference of squares, which in float32 would be mostly rounding.
    Written with as few temporary arrays as can be: most of a picture's time is spent here.
    """
    centre_x, centre_y, centre_z = ball.centre
    x, y, z = centre_x - origin[0], centre_y - origin[1], centre_z - origin[2]
    along = x * toward[0]
    scratch = y * toward[1]
    along += scratch
    along += np.multiply(z, toward[2], out=scratch)
    x -= np.multiply(along, toward[0], out=scratch)
    y -= np.multiply(along, toward[1], out=scratch)
    z -= np.multiply(along, toward[2], out=scratch)
    x *= x
    x += np.multiply(y, y, out=y)
    x += np.multiply(z, z, out=z)
    return along, np.subtract(ball.radius * ball.radius, x, out=x)


def touching(cluster: Cluster, origin: F32, toward: F32, reach: F32) -> I64:
    """Which rays come into the cluster before ``reach``."""
    along, inside = meet(cluster.around, origin, toward)
    half = np.sqrt(np.maximum(inside, 0))
    return np.flatnonzero((inside > 0) & (along + half > 0) & (along - half < reach))


def _nearest_of(balls: tuple[Ball, ...], origin: F32, toward: F32, reach: F32, which: I64) -> None:
    """Shorten ``reach`` and set ``which`` where a ray meets one of the balls sooner."""
    for ball in balls:
        along, inside = meet(ball, origin, toward)
        if not (inside > 0).any():
            continue
        half = np.sqrt(np.maximum(inside, 0))
        first = along - half
        distance = np.where(first > NEAR, first, along + half)
        sooner = (inside > 0) & (distance > NEAR) & (distance < reach)
        np.copyto(reach, distance, where=sooner)
        np.copyto(which, ball.index, where=sooner)


def _nearest_in(cluster: Cluster, origin: F32, toward: F32, reach: F32, which: I64) -> None:
    some = touching(cluster, origin, toward, reach)
    if not some.size:
        return
    part_origin, part_toward = origin.take(some, axis=1), toward.take(some, axis=1)
    part_reach, part_which = reach[some], which[some]
    _nearest_of(cluster.balls, part_origin, part_toward, part_reach, part_which)
    for part in cluster.parts:
        _nearest_in(part, part_origin, part_toward, part_reach, part_which)
    reach[some], which[some] = part_reach, part_which


def nearest(cluster: Cluster, floor: int, origin: F32, toward: F32) -> tuple[F32, I64]:
    """How far each ray goes and the index of what it meets: a ball's, ``floor``, or ``NOTHING``."""
    down = toward[1] < 0
    reach = np.where(down, -origin[1] / np.where(down, toward[1], np.float32(-1)), HORIZON)
    reach = np.where(reach > NEAR, np.minimum(reach, HORIZON), HORIZON)
    which = np.where(reach < HORIZON, floor, NOTHING)
    _nearest_in(cluster, origin, toward, reach, which)
    return reach, which
