"""The picture of the demonstration: a glass ball at dusk, in the middle of a spiral of marbles on a polished floor."""

import math
from typing import Final

import numpy as np

from peer.workers.rays.dice import F32
from peer.workers.rays.request import THOUSAND, Camera, Floor, Kind, Material, Point, Scene, Sky, Sphere
from peer.workers.rays.textures import Colour, blend, clouds, noise, paint, smooth, texture, upper_directions
from peer.workers.rays.tiles import Plan

WIDTH: Final = 600
HEIGHT: Final = 400
SAMPLES: Final = 32
BOUNCES: Final = 8

_SKY_SIDE: Final = 256
_STONE_SIDE: Final = 256
# From marble to marble the spiral turns by 14 degrees (their cosine and sine) and grows; so do the marbles, which touch.
_TURN: Final = (0.9702957263, 0.2419218956)
_GROWTH: Final = 1.0215
_MARBLES: Final = 47
_GRADIENT: Final[tuple[Colour, ...]] = (
    (0.95, 0.66, 0.22),
    (0.93, 0.36, 0.16),
    (0.78, 0.10, 0.20),
    (0.36, 0.07, 0.36),
    (0.09, 0.12, 0.42),
    (0.03, 0.30, 0.42),
    (0.10, 0.50, 0.46),
)


def _sky() -> F32:
    """Dusk: an amber horizon under deep blue, brightest where the sun went down, with lit bands of cloud."""
    x, y, z = upper_directions(_SKY_SIDE)
    horizon, middle, zenith = paint((0.74, 0.25, 0.095)), paint((0.30, 0.11, 0.21)), paint((0.016, 0.05, 0.15))
    light = blend(blend(horizon, middle, smooth(0.005, 0.06, y)), zenith, smooth(0.025, 0.15, y))
    sunward = np.maximum(x * np.float32(0.36) + y * np.float32(0.06) + z * np.float32(0.931), 0)
    glow = sunward * sunward * sunward * sunward
    light = light * (np.float32(0.7) + np.float32(0.5) * glow) + paint((0.60, 0.20, 0.045)) * (glow * glow * glow)
    away = y + np.float32(0.16)
    banks = clouds(x / away + 40, z / away * np.float32(2.4) + 40, 7, 64, 6)
    share = smooth(0.46, 0.70, banks) * smooth(0.01, 0.16, y) * np.float32(0.75)
    cloud = blend(paint((0.10, 0.10, 0.19)), paint((0.95, 0.46, 0.26)), np.minimum(glow + smooth(0.25, 0.05, y), 1))
    return blend(light, cloud, share)


def _stone() -> F32:
    """Two dark marbles, laid like a chessboard, two by two."""
    place = (np.arange(_STONE_SIDE, dtype=np.float32) + np.float32(0.5)) / np.float32(_STONE_SIDE) * 2
    u, v = np.meshgrid(place, place)
    warp = clouds(u * 4, v * 4, 11, 8, 4)
    vein = 1 - np.minimum(np.abs(noise(u * 3 + warp * 3, v * 3 + warp * 2, 21, 6) * 2 - 1) * 7, 1)
    grain = clouds(u * 16, v * 16, 31, 32, 4)
    dark = blend(paint((0.010, 0.014, 0.024)), paint((0.16, 0.13, 0.10)), vein * vein * np.float32(0.5))
    pale = blend(paint((0.40, 0.37, 0.36)), paint((0.16, 0.14, 0.16)), vein * np.float32(0.6))
    board = ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)
    return blend(dark, pale, board) * (np.float32(0.65) + np.float32(0.7) * grain)


class _Arrangement:
    """Materials and spheres while they are being placed. Lengths in units."""

    def __init__(self) -> None:
        self.materials: list[Material] = []
        self.spheres: list[Sphere] = []

    def material(self, kind: Kind, colour: Colour, finish: float = 0.0) -> int:
        red, green, blue = (round(part * THOUSAND) for part in colour)
        self.materials.append(Material(kind=kind, red=red, green=green, blue=blue, finish=round(finish * THOUSAND)))
        return len(self.materials) - 1

    def ball(self, x: float, y: float, z: float, radius: float, material: int) -> None:
        centre = Point(x=round(x * THOUSAND), y=round(y * THOUSAND), z=round(z * THOUSAND))
        self.spheres.append(Sphere(centre=centre, radius=round(radius * THOUSAND), material=material))


def _marbles(place: _Arrangement) -> None:
    """A spiral of marbles around the middle, amber inside and sea green outside; every eighth is of gold."""
    gold = place.material(Kind.METAL, (1.0, 0.78, 0.42), 0.02)
    x, z = -0.55, 1.18
    for number in range(_MARBLES):
        next_x = (x * _TURN[0] - z * _TURN[1]) * _GROWTH
        next_z = (x * _TURN[1] + z * _TURN[0]) * _GROWTH
        radius = math.sqrt((next_x - x) * (next_x - x) + (next_z - z) * (next_z - z)) * 0.49
        place.ball(x, radius, z, radius, gold if number % 8 == 5 else place.material(Kind.MATT, _shade(number), 1.0))
        x, z = next_x, next_z


def _shade(number: int) -> Colour:
    """The colour of a marble, between two neighbours of the gradient."""
    step, share = divmod(number * (len(_GRADIENT) - 1) / _MARBLES, 1)
    one, two = _GRADIENT[int(step)], _GRADIENT[int(step) + 1]
    red, green, blue = (a * (1 - share) + b * share for a, b in zip(one, two, strict=True))
    return red, green, blue


def _lanterns(place: _Arrangement) -> None:
    """Lights far behind, which the lens spreads to discs."""
    warm = place.material(Kind.GLOW, (4.4, 2.2, 0.7))
    rose = place.material(Kind.GLOW, (3.4, 0.8, 0.6))
    for number, (x, y, z) in enumerate(
        (
            (-9.3, 4.2, 15.0), (-6.6, 3.3, 18.0), (-4.3, 4.9, 16.0), (-2.4, 3.5, 20.0), (-0.5, 4.5, 17.0), (1.5, 3.4, 15.0),
            (3.4, 4.7, 19.0), (5.0, 3.6, 16.0), (7.2, 5.0, 18.0), (8.3, 3.4, 20.0), (10.4, 4.4, 17.0),
        )
    ):  # fmt: skip
        place.ball(x, y, z, 0.15, rose if number % 3 == 1 else warm)


def demo_scene(width: int = WIDTH, height: int = HEIGHT, samples: int = SAMPLES, bounces: int = BOUNCES) -> Plan:
    """The picture of the demonstration, at this size and with this much work for each pixel."""
    place = _Arrangement()
    place.ball(-7.5, 9.0, -2.5, 1.7, place.material(Kind.LIGHT, (30.0, 24.0, 18.0)))
    place.ball(0.0, 1.02, 0.0, 1.02, place.material(Kind.GLASS, (0.97, 0.99, 1.0)))
    place.ball(-2.9, 1.25, 4.2, 1.25, place.material(Kind.METAL, (0.93, 0.94, 0.97), 0.0))
    _marbles(place)
    _lanterns(place)
    scene = Scene(
        sky=Sky(texture=texture(_sky()), gain=800),
        floor=Floor(texture=texture(_stone()), span=2_200, coat=THOUSAND, haze=140_000),
        materials=tuple(place.materials),
        spheres=tuple(place.spheres),
        camera=Camera(
            eye=Point(x=300, y=2_950, z=-8_700),
            target=Point(x=0, y=960, z=0),
            width=860,
            lens_radius=75,
            focus=8_500,
            exposure=1_000,
        ),
        seed=2013,
    )
    return Plan(scene=scene, width=width, height=height, samples=samples, bounces=bounces)
