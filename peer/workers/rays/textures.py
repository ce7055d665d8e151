"""The demonstration's textures, made of integer noise by the arithmetic rule of ``dice``: the same bytes everywhere."""

import numpy as np
import numpy.typing as npt

from peer.workers.rays.dice import F32, mix
from peer.workers.rays.request import Texture

Colour = tuple[float, float, float]


def _corner(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], seed: int) -> F32:
    key = mix(x.astype(np.uint32) * np.uint32(0x8DA6B343) ^ y.astype(np.uint32) * np.uint32(0xD8163841) ^ np.uint32(seed))
    return (key >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def noise(x: F32, y: F32, seed: int, repeat: int) -> F32:
    """Smooth noise in [0, 1) with a feature about every unit; it repeats every ``repeat`` units."""
    left, top = np.floor(x), np.floor(y)
    across, down = x - left, y - top
    across, down = across * across * (3 - across - across), down * down * (3 - down - down)
    column, row = left.astype(np.int64), top.astype(np.int64)
    x0, x1, y0, y1 = column % repeat, (column + 1) % repeat, row % repeat, (row + 1) % repeat
    upper = _corner(x0, y0, seed) * (1 - across) + _corner(x1, y0, seed) * across
    lower = _corner(x0, y1, seed) * (1 - across) + _corner(x1, y1, seed) * across
    return upper * (1 - down) + lower * down


def clouds(x: F32, y: F32, seed: int, repeat: int, octaves: int) -> F32:
    """Noise on noise at half the size and half the strength, about [0, 1)."""
    total, strength = np.zeros_like(x), 0.5
    for octave in range(octaves):
        scale = 1 << octave
        total = total + np.float32(strength) * noise(x * scale, y * scale, seed + octave, repeat * scale)
        strength /= 2
    return total


def smooth(low: float, high: float, x: F32) -> F32:
    """0 below ``low``, 1 above ``high``, a smooth step between."""
    share = np.minimum(np.maximum((x - np.float32(low)) / np.float32(high - low), 0), 1)
    step: F32 = share * share * (3 - share - share)
    return step


def blend(a: F32, b: F32, share: F32) -> F32:
    """From ``a`` (share 0) to ``b`` (share 1)."""
    return a * (1 - share) + b * share


def paint(colour: Colour) -> F32:
    """A colour to blend images with: shape (3, 1, 1)."""
    return np.array(colour, np.float32).reshape(3, 1, 1)


def texture(light: F32) -> Texture:
    """The texture of linear light of shape (3, side, side); a byte is 255 times the square root."""
    shown = np.sqrt(np.minimum(np.maximum(light, 0), 1)) * np.float32(255) + np.float32(0.5)
    return Texture(side=light.shape[1], pixels=np.floor(shown).astype(np.uint8).transpose(1, 2, 0).tobytes())


def upper_directions(side: int) -> tuple[F32, F32, F32]:
    """The unit vector that each pixel of a sky texture stands for."""
    place = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side) * 2 - 1
    u, v = np.meshgrid(place, place)
    x, z = (u + v) * np.float32(0.5), (u - v) * np.float32(0.5)
    y = 1 - np.abs(x) - np.abs(z)
    size = np.sqrt(x * x + y * y + z * z)
    return x / size, y / size, z / size
