"""What light does where it arrives: textures, sky, lamps, shadows, and the way onward from each kind of surface."""

from typing import Final

import numpy as np
import numpy.typing as npt

from peer.workers.rays.dice import F32, disc
from peer.workers.rays.geometry import NEAR, Ball, Cluster, dot, frame, meet, touching, unit
from peer.workers.rays.request import THOUSAND, Kind, Material, Sky, Texture

GLASS_INDEX: Final = 1.5
_COAT_FACING: Final = 0.04  # what glass-like coats reflect head on


class Image:
    """A texture in linear light, read between its pixels."""

    def __init__(self, texture: Texture, gain: float = 1.0) -> None:
        raw = np.frombuffer(texture.pixels, np.uint8).astype(np.float32) / np.float32(255)
        self._side = texture.side
        self._texels = np.ascontiguousarray((raw * raw * np.float32(gain)).reshape(-1, 3).T)

    def read(self, u: F32, v: F32, *, wrap: bool) -> F32:
        """Colours at places in [0, 1), bilinear; beyond the edge the texture repeats, or its edge goes on."""
        side = self._side
        x, y = u * side - np.float32(0.5), v * side - np.float32(0.5)
        left, top = np.floor(x), np.floor(y)
        across, down = x - left, y - top
        column, row = left.astype(np.int64), top.astype(np.int64)
        next_column, next_row = column + 1, row + 1
        if wrap:
            column, next_column, row, next_row = column % side, next_column % side, row % side, next_row % side
        else:
            column, next_column = np.clip(column, 0, side - 1), np.clip(next_column, 0, side - 1)
            row, next_row = np.clip(row, 0, side - 1), np.clip(next_row, 0, side - 1)
        take = self._texels.take
        upper = take(row * side + column, axis=1) * (1 - across) + take(row * side + next_column, axis=1) * across
        lower = take(next_row * side + column, axis=1) * (1 - across) + take(next_row * side + next_column, axis=1) * across
        colours: F32 = upper * (1 - down) + lower * down
        return colours


class Surroundings:
    """The sky, as light from a direction."""

    def __init__(self, sky: Sky) -> None:
        self._image = Image(sky.texture, sky.gain / THOUSAND)

    def light(self, toward: F32) -> F32:
        """Colours from each direction; below the horizon that of the horizon."""
        x, y, z = toward[0], np.maximum(toward[1], 0), toward[2]
        size = np.maximum(np.abs(x) + y + np.abs(z), np.float32(1e-6))
        a, b = x / size, z / size
        return self._image.read((a + b + 1) * np.float32(0.5), (a - b + 1) * np.float32(0.5), wrap=False)


class Lamp:
    """A sphere that lights the scene; seen from a point it is a disc that faces it."""

    def __init__(self, ball: Ball, material: Material) -> None:
        self.ball = ball
        self.colour = column(material)

    def shine(self, cluster: Cluster, point: F32, normal: F32, u: F32, v: F32) -> F32:
        """Light that arrives at each point, cosine included, divided by pi: multiplied by a matt colour it is what leaves."""
        ball = self.ball
        centre = np.stack([ball.centre[axis] - point[axis] for axis in range(3)])
        square = dot(centre, centre)
        facing = centre / np.sqrt(square)
        one, two = frame(facing)
        across, up = disc(u, v)
        aim = centre + ball.radius * (one * across + two * up)
        far = np.sqrt(dot(aim, aim))
        aim = aim / far
        cosine = np.maximum(dot(aim, normal), 0)
        lit = np.flatnonzero(cosine > 0)
        light = np.zeros_like(point)
        if lit.size:
            seen = np.ones(lit.size, np.float32)
            _shadow(cluster, ball, point.take(lit, axis=1), aim.take(lit, axis=1), far[lit], seen)
            light[:, lit] = seen * self.colour * (cosine[lit] * (ball.radius * ball.radius) / square[lit])
        return light


def column(material: Material) -> F32:
    """A material's colour, to multiply vectors with."""
    return np.array([[material.red], [material.green], [material.blue]], np.float32) / np.float32(THOUSAND)


def _shadow(cluster: Cluster, lamp: Ball, origin: F32, toward: F32, far: F32, share: F32) -> None:
    """Dim each share of a lamp's light by what stands between; glass gathers light in its middle and dims its rim."""
    some = touching(cluster, origin, toward, far)
    some = some[share[some] > 0]
    if not some.size:
        return
    part_origin, part_toward = origin.take(some, axis=1), toward.take(some, axis=1)
    part_far, part_share = far[some], share[some]
    _dim(cluster.balls, lamp, part_origin, part_toward, part_far, part_share)
    for part in cluster.parts:
        _shadow(part, lamp, part_origin, part_toward, part_far, part_share)
    share[some] = part_share


def _dim(balls: tuple[Ball, ...], lamp: Ball, origin: F32, toward: F32, far: F32, share: F32) -> None:
    for ball in balls:
        if ball.index == lamp.index or ball.kind in (Kind.LIGHT, Kind.GLOW):
            continue
        along, inside = meet(ball, origin, toward)
        hit = inside > 0
        if not hit.any():
            continue
        leaves = along + np.sqrt(np.maximum(inside, 0))
        hit &= (leaves > NEAR * 4) & (along < far)
        if ball.kind is Kind.GLASS:
            middle = inside / np.float32(ball.radius * ball.radius)
            share *= np.where(hit, np.float32(0.12) + np.float32(2.0) * middle * middle, np.float32(1))
        elif ball.kind is Kind.BUBBLE:
            middle = inside / np.float32(ball.radius * ball.radius)
            share *= np.where(hit, np.minimum(np.float32(0.55) + middle, 1), np.float32(1))
        else:
            share[hit] = 0


def schlick(facing: float, cosine: F32) -> F32:
    """What share a surface reflects at an angle, from what it reflects head on (Schlick's approximation)."""
    rest = np.maximum(1 - cosine, 0)
    square = rest * rest
    share: F32 = facing + (1 - facing) * square * square * rest
    return share


def coat_share(finish: F32, cosine: F32) -> F32:
    """What a clear coat of strength ``finish`` (0 to 1) reflects."""
    return finish * schlick(_COAT_FACING, cosine)


def mirrored(toward: F32, normal: F32) -> F32:
    """Directions thrown back."""
    return toward - 2 * dot(toward, normal) * normal


def scattered(normal: F32, u: F32, v: F32) -> F32:
    """Directions around the normal, as often as their cosine."""
    across, up = disc(u, v)
    one, two = frame(normal)
    return unit(one * across + two * up + normal * np.sqrt(np.maximum(1 - across * across - up * up, np.float32(1e-6))))


def roughened(toward: F32, normal: F32, roughness: F32, u: F32, v: F32) -> F32:
    """Mirrored directions, spread by ``roughness``, turned back to the outside where they would enter."""
    across, up = disc(u, v)
    one, two = frame(toward)
    spread = unit(toward + roughness * (one * across + two * up))
    inward = np.minimum(dot(spread, normal), 0)
    return unit(spread - 2 * inward * normal)


def through_glass(toward: F32, normal: F32) -> tuple[F32, F32, F32, npt.NDArray[np.bool_]]:
    """At a glass surface whose normal points out: the reflected and the refracted directions, the share that is reflected by
    Fresnel's law (1 where nothing can pass), and whether the ray comes from outside.
    """
    cosine = dot(toward, normal)
    entering = cosine < 0
    ratio = np.where(entering, np.float32(1 / GLASS_INDEX), np.float32(GLASS_INDEX))
    outward = np.where(entering, normal, -normal)
    incident = np.abs(cosine)
    square = 1 - ratio * ratio * (1 - incident * incident)
    passing = np.sqrt(np.maximum(square, 0))
    # Both polarisations; n1/n2 is ``ratio``.
    across = (ratio * incident - passing) / (ratio * incident + passing)
    along = (incident - ratio * passing) / (incident + ratio * passing)
    share = np.where(square > 0, (across * across + along * along) * np.float32(0.5), np.float32(1))
    refracted = ratio * toward + (ratio * incident - passing) * outward
    return unit(mirrored(toward, outward)), unit(refracted), share, entering
