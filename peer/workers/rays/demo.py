"""The picture of the demonstration: a glass ball at dusk, in the middle of a spiral of marbles on a polished floor."""

from typing import Final

import numpy as np

from peer.workers.rays.dice import F32
from peer.workers.rays.request import THOUSAND, Camera, Floor, Kind, Material, Point, Scene, Sky, Sphere
from peer.workers.rays.textures import Colour, blend, clouds, noise, paint, smooth, texture, upper_directions
from peer.workers.rays.tiles import Plan

WIDTH: Final = 600
HEIGHT: Final = 400
SAMPLES: Final = 64
BOUNCES: Final = 8

_SKY_SIDE: Final = 256
_STONE_SIDE: Final = 256
# The golden angle, by which sunflowers turn from seed to seed: its cosine and sine.
_TURN: Final = (-0.7373688781, 0.6754902943)
_MARBLES: Final = 64
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
    horizon, middle, zenith = paint((0.80, 0.36, 0.16)), paint((0.30, 0.20, 0.34)), paint((0.018, 0.045, 0.14))
    light = blend(blend(horizon, middle, smooth(0.0, 0.2, y)), zenith, smooth(0.08, 0.55, y))
    sunward = np.maximum(x * np.float32(0.36) + y * np.float32(0.06) + z * np.float32(0.931), 0)
    glow = sunward * sunward * sunward * sunward
    light = light * (np.float32(0.55) + np.float32(0.6) * glow) + paint((0.62, 0.30, 0.08)) * (glow * glow * glow)
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
    """A sunflower of marbles around the middle, amber inside and sea green outside; some are of gold and some of glass."""
    enamel = [place.material(Kind.MATT, colour, 1.0) for colour in _GRADIENT]
    gold = place.material(Kind.METAL, (1.0, 0.70, 0.30), 0.06)
    glass = place.material(Kind.GLASS, (0.86, 0.97, 0.98))
    x, z = 1.0, 0.35
    for number in range(_MARBLES):
        x, z = x * _TURN[0] - z * _TURN[1], x * _TURN[1] + z * _TURN[0]
        away = float(np.sqrt(np.float64(1.9 + number * 0.26)))
        radius = 0.17 + 0.0016 * number
        material = enamel[number * len(enamel) // _MARBLES]
        if number % 9 == 4:
            material = gold
        elif number % 11 == 6:
            material = glass
        place.ball(x * away, radius, z * away, radius, material)


def _lanterns(place: _Arrangement) -> None:
    """Lights far behind, which the lens spreads to discs."""
    warm = place.material(Kind.GLOW, (26.0, 13.0, 4.2))
    rose = place.material(Kind.GLOW, (22.0, 7.0, 5.5))
    for number, (x, y, z) in enumerate(
        (
            (-8.4, 1.9, 15.0), (-6.3, 3.0, 17.5), (-5.2, 1.2, 13.0), (-3.2, 2.3, 16.0), (-1.6, 3.5, 19.0), (0.9, 2.6, 17.0),
            (3.0, 3.4, 18.0), (4.3, 1.5, 13.5), (6.0, 2.6, 15.5), (7.8, 1.3, 16.5), (9.6, 2.9, 19.0), (-10.2, 3.3, 20.0),
        )
    ):  # fmt: skip
        place.ball(x, y, z, 0.09, rose if number % 3 == 1 else warm)


def demo_scene(width: int = WIDTH, height: int = HEIGHT, samples: int = SAMPLES, bounces: int = BOUNCES) -> Plan:
    """The picture of the demonstration, at this size and with this much work for each pixel."""
    place = _Arrangement()
    place.ball(-7.5, 9.0, -2.5, 1.7, place.material(Kind.LIGHT, (30.0, 24.0, 18.0)))
    place.ball(0.0, 1.02, 0.0, 1.02, place.material(Kind.GLASS, (0.97, 0.99, 1.0)))
    place.ball(-2.9, 1.25, 4.2, 1.25, place.material(Kind.METAL, (0.93, 0.94, 0.97), 0.0))
    _marbles(place)
    _lanterns(place)
    scene = Scene(
        sky=Sky(texture=texture(_sky()), gain=1_100),
        floor=Floor(texture=texture(_stone()), span=2_200, coat=THOUSAND, haze=45_000),
        materials=tuple(place.materials),
        spheres=tuple(place.spheres),
        camera=Camera(
            eye=Point(x=500, y=2_450, z=-7_600),
            target=Point(x=0, y=720, z=0),
            width=850,
            lens_radius=75,
            focus=7_300,
            exposure=1_000,
        ),
        seed=2013,
    )
    return Plan(scene=scene, width=width, height=height, samples=samples, bounces=bounces)
