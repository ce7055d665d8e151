"""From a work to its pixels: rays go out in batches and are followed, all at once, from surface to surface.

Theory of operation. A batch is every sample of a few hundred pixels. Each step finds what the rays meet, adds what they see
of sky and lamps, sorts them by kind of surface and sends the survivors onward. Nothing flows between rays: a ray's numbers
depend on its pixel, its sample and the scene alone, and a pixel adds its samples in the order of their numbers. That, with the
arithmetic rule of ``dice``, makes a picture the same to the bit however it is cut.

Every matt point asks each lamp directly, so paths that later run into a lamp by chance do not count it again.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from peer.workers.rays.dice import F32, U32, disc, pair, pixel_keys
from peer.workers.rays.film import develop
from peer.workers.rays.geometry import I64, NOTHING, Triple, balls_of, cluster_of, dot, nearest, triple, unit
from peer.workers.rays.request import FORMAT, THOUSAND, Camera, Kind, Result, Work, check_work, read_work
from peer.workers.rays.surfaces import (
    Image,
    Lamp,
    Surroundings,
    coat_share,
    column,
    mirrored,
    roughened,
    scattered,
    schlick,
    through_glass,
)
from wire.canon import pack

_BATCH_RAYS: Final = 1 << 16
_FAINT: Final = np.float32(0.004)  # a path that can add less is ended
_INDIRECT_MOST: Final = np.float32(1.5)  # light found by luck, after a matt surface or late, is capped: no sparks in the picture
_UNCAPPED: Final = 2
_MATT_BOUNCES: Final = 3
_PURPOSES: Final = 4
_ONWARD, _LAMP, _COIN = 0, 1, 2


@dataclass(slots=True)
class _Rays:
    """Rays under way. ``lane`` says where in the batch's film a ray adds its light; ``matt`` counts its matt surfaces."""

    origin: F32
    toward: F32
    weight: F32
    keys: U32
    samples: U32
    lane: I64
    matt: I64

    def at(self, some: I64) -> "_Rays":
        return _Rays(
            self.origin.take(some, axis=1),
            self.toward.take(some, axis=1),
            self.weight.take(some, axis=1),
            self.keys[some],
            self.samples[some],
            self.lane[some],
            self.matt[some],
        )


def _joined(parts: list[_Rays]) -> _Rays:
    return _Rays(
        np.concatenate([one.origin for one in parts], axis=1),
        np.concatenate([one.toward for one in parts], axis=1),
        np.concatenate([one.weight for one in parts], axis=1),
        np.concatenate([one.keys for one in parts]),
        np.concatenate([one.samples for one in parts]),
        np.concatenate([one.lane for one in parts]),
        np.concatenate([one.matt for one in parts]),
    )


class _Eye:
    """The camera's lens and directions."""

    def __init__(self, camera: Camera, image_width: int, image_height: int) -> None:
        self._eye = _vector(triple(camera.eye))
        ahead = unit(_vector(triple(camera.target)) - self._eye)
        right = unit(np.stack([ahead[2], np.zeros(1, np.float32), -ahead[0]]))
        self._up = np.stack(
            [
                ahead[1] * right[2] - ahead[2] * right[1],
                ahead[2] * right[0] - ahead[0] * right[2],
                ahead[0] * right[1] - ahead[1] * right[0],
            ]
        )
        self._ahead, self._right = ahead, right
        self._scale = camera.width / THOUSAND / image_width
        self._centre = (image_width / 2, image_height / 2)
        self._lens = camera.lens_radius / THOUSAND
        self._focus = camera.focus / THOUSAND

    def look(self, x: F32, y: F32, u: F32, v: F32) -> tuple[F32, F32]:
        """Origins and directions of the rays through places of the picture (in pixels) and places (u, v) of the lens."""
        across, up = (x - self._centre[0]) * self._scale, (self._centre[1] - y) * self._scale
        sharp = (self._ahead + self._right * across + self._up * up) * self._focus
        lens_x, lens_y = disc(u, v)
        shift = (self._right * lens_x + self._up * lens_y) * self._lens
        return self._eye + shift, unit(sharp - shift)


def _vector(place: Triple) -> F32:
    return np.array(place, np.float32).reshape(3, 1)


def _tent(u: F32) -> F32:
    """A number in (-1, 1), near 0 most often: what makes edges smooth."""
    low = u < np.float32(0.5)
    return np.where(low, np.sqrt(u + u) - 1, 1 - np.sqrt(np.maximum(2 - u - u, 0)))


class _Tracer:
    """One work's scene, made ready."""

    def __init__(self, work: Work) -> None:
        self._work = work
        scene = work.scene
        self._sky = Surroundings(scene.sky)
        self._floor = Image(scene.floor.texture)
        self._floor_span = scene.floor.span / THOUSAND
        self._floor_coat = scene.floor.coat / THOUSAND
        self._haze = scene.floor.haze / THOUSAND
        self._balls = balls_of(scene)
        self._cluster = cluster_of(self._balls)
        self._materials = [scene.materials[one.material] for one in scene.spheres]
        self._lamps = [Lamp(ball, one) for ball, one in zip(self._balls, self._materials, strict=True) if one.kind is Kind.LIGHT]
        # One row more than spheres: the floor.
        self._floor_index = len(self._balls)
        centres = [ball.centre for ball in self._balls] + [(0.0, 0.0, 0.0)]
        self._centres = np.array(centres, np.float32).T.copy()
        self._colours = np.concatenate([column(one) for one in self._materials] + [np.zeros((3, 1), np.float32)], axis=1)
        self._finishes = np.array([one.finish / THOUSAND for one in self._materials] + [self._floor_coat], np.float32)
        self._kinds = np.array([int(one.kind) for one in self._materials] + [int(Kind.MATT)], np.int64)
        self._second_lanes = 0
        self._mask = (1 << (work.samples - 1).bit_length()) - 1
        self._eye = _Eye(scene.camera, work.image_width, work.image_height)

    def light(self, x: U32, y: U32) -> F32:
        """The light of every sample of the pixels at (x, y): shape (3, samples, pixels)."""
        count = self._work.samples
        keys = np.tile(pixel_keys(self._work.scene.seed, x, y), count)
        samples = np.repeat(np.arange(count, dtype=np.uint32), x.size)
        u, v = pair(keys, samples, self._mask, _ONWARD)
        lens = pair(keys, samples, self._mask, _LAMP)
        column_, row = np.tile(x, count).astype(np.float32), np.tile(y, count).astype(np.float32)
        origin, toward = self._eye.look(column_ + np.float32(0.5) + _tent(u), row + np.float32(0.5) + _tent(v), *lens)
        lanes = np.arange(keys.size)
        self._second_lanes = keys.size
        film = np.zeros((3, 2 * keys.size), np.float32)
        rays = _Rays(origin, toward, np.ones_like(origin), keys, samples, lanes, np.zeros_like(lanes))
        for bounce in range(1, self._work.bounces + 1):
            rays = self._step(rays, film, bounce)
            if not rays.lane.size:
                break
        return (film[:, : keys.size] + film[:, keys.size :]).reshape(3, count, x.size)

    def _add(self, film: F32, rays: _Rays, light: F32, bounce: int) -> None:
        """Put light on the film. No two rays share a lane, so the order of the rays does not matter."""
        given = rays.weight * light
        film[:, rays.lane] += np.where((rays.matt > 0) | (bounce > _UNCAPPED), np.minimum(given, _INDIRECT_MOST), given)

    def _step(self, rays: _Rays, film: F32, bounce: int) -> _Rays:
        """Follow each ray to what it meets; returns those that go on."""
        reach, which = nearest(self._cluster, self._floor_index, rays.origin, rays.toward)
        missed = np.flatnonzero(which == NOTHING)
        if missed.size:
            out = rays.at(missed)
            self._add(film, out, self._sky.light(out.toward), bounce)
        kinds = np.where(which == NOTHING, NOTHING, self._kinds[which])
        onward: list[_Rays] = []
        for kind in Kind:
            some = np.flatnonzero(kinds == kind)
            if not some.size:
                continue
            part, hit = rays.at(some), which[some]
            if kind in (Kind.LIGHT, Kind.GLOW):
                self._add(film, part, np.where(part.matt > 0, np.float32(0), self._colours.take(hit, axis=1)), bounce)
                continue
            part.origin = part.origin + part.toward * reach[some]
            normal = unit(part.origin - self._centres.take(hit, axis=1))
            floor = hit == self._floor_index
            normal = np.where(floor, _vector((0.0, 1.0, 0.0)), normal)
            onward += self._scatter(kind, part, hit, normal, reach[some], film, bounce)
        if not onward:
            return rays.at(missed[:0])
        rays = _joined(onward)
        bright = np.maximum(np.maximum(rays.weight[0], rays.weight[1]), rays.weight[2])
        return rays.at(np.flatnonzero(bright > _FAINT))

    def _scatter(self, kind: Kind, rays: _Rays, hit: I64, normal: F32, reach: F32, film: F32, bounce: int) -> list[_Rays]:
        """Send rays onward from surfaces of one kind."""
        u, v = pair(rays.keys, rays.samples, self._mask, bounce * _PURPOSES + _ONWARD)
        if kind is Kind.MATT:
            return self._scatter_matt(rays, hit, normal, reach, film, bounce, (u, v))
        colour = self._colours.take(hit, axis=1)
        cosine = np.abs(dot(rays.toward, normal))
        if kind is Kind.METAL:
            rays.weight = rays.weight * (colour + (1 - colour) * schlick(0.0, cosine))
            rays.toward = roughened(mirrored(rays.toward, normal), normal, self._finishes[hit], u, v)
            return [rays]
        if kind is Kind.GLASS:
            back, onward, share, entering = through_glass(rays.toward, normal)
            tint_back, tint_onward = np.ones_like(colour), np.where(entering, colour, np.float32(1))
        else:
            # A film as thin as a bubble's does not bend light; its rim shimmers in complementary colours.
            back, onward = mirrored(rays.toward, normal), rays.toward
            share = np.minimum(schlick(0.04, cosine) * np.float32(1.6), 1)
            tint_back = colour * (np.float32(0.6) + cosine) + (1 - colour) * (1 - cosine)
            tint_onward = np.ones_like(colour)
        thrown, passed = self._divide(rays, share, u, bounce)
        for part, toward, tint in ((thrown, back, tint_back), (passed, onward, tint_onward)):
            part[0].toward = toward.take(part[1], axis=1)
            part[0].weight = part[0].weight * tint.take(part[1], axis=1)
        return [thrown[0], passed[0]]

    def _divide(self, rays: _Rays, share: F32, coin: F32, bounce: int) -> tuple[tuple[_Rays, I64], tuple[_Rays, I64]]:
        """The rays that are thrown back and those that are not, each with their places in ``rays``.

        What the eye sees first is followed both ways, each with its share of the weight: a coin there would be noise in plain
        sight. The second way has lanes of its own. Later a coin decides.
        """
        if bounce > 1:
            thrown, passed = np.flatnonzero(coin < share), np.flatnonzero(coin >= share)
            return (rays.at(thrown), thrown), (rays.at(passed), passed)
        everyone = np.arange(share.size)
        back, onward = rays.at(everyone), rays.at(everyone)
        back.weight, onward.weight = rays.weight * share, rays.weight * (1 - share)
        back.lane = rays.lane + self._second_lanes
        back.keys = rays.keys ^ np.uint32(0x68E31DA4)
        return (back, everyone), (onward, everyone)

    def _scatter_matt(
        self, rays: _Rays, hit: I64, normal: F32, reach: F32, film: F32, bounce: int, onward: tuple[F32, F32]
    ) -> list[_Rays]:
        """Send rays onward from a clear coat and from the matt surface under it, which lamps light."""
        floor = np.flatnonzero(hit == self._floor_index)
        colour = self._colours.take(hit, axis=1)
        if floor.size:
            colour[:, floor] = self._enter_haze(rays, floor, reach[floor], film, bounce)
        share = coat_share(self._finishes[hit], np.abs(dot(rays.toward, normal)))
        coin, _ = pair(rays.keys, rays.samples, self._mask, bounce * _PURPOSES + _COIN)
        (shiny, glossy), (flat, dull) = self._divide(rays, share, coin, bounce)
        shiny.toward = mirrored(shiny.toward, normal.take(glossy, axis=1))
        normal = normal.take(dull, axis=1)
        flat.weight = flat.weight * colour.take(dull, axis=1)
        u, v = pair(flat.keys, flat.samples, self._mask, bounce * _PURPOSES + _LAMP)
        for lamp in self._lamps:
            self._add(film, flat, lamp.shine(self._cluster, flat.origin, normal, u, v), bounce)
        flat.toward = scattered(normal, onward[0][dull], onward[1][dull])
        flat.matt = flat.matt + 1
        return [shiny, flat.at(np.flatnonzero(flat.matt <= _MATT_BOUNCES))]

    def _enter_haze(self, rays: _Rays, floor: I64, reach: F32, film: F32, bounce: int) -> F32:
        """Colours of the floor; what lies far away is partly the horizon's light instead."""
        square = reach * reach
        haze = square / (square + np.float32(self._haze * self._haze))
        part = rays.at(floor)
        part.weight = part.weight * haze
        self._add(film, part, self._sky.light(np.stack([part.toward[0], np.zeros_like(reach), part.toward[2]])), bounce)
        rays.weight[:, floor] *= 1 - haze
        rays.origin[1, floor] = 0
        return self._floor.read(part.origin[0] / self._floor_span, part.origin[2] / self._floor_span, wrap=True)


def render(work: Work) -> Result:
    """The pixels of a checked work. Raises ``BadWork`` when it is not in order."""
    check_work(work)
    with np.errstate(all="ignore"):
        tracer = _Tracer(work)
        pixels = work.width * work.height
        rows = np.empty((pixels, 3), np.uint8)
        group = max(1, _BATCH_RAYS // work.samples)
        for start in range(0, pixels, group):
            places = np.arange(start, min(start + group, pixels), dtype=np.int64)
            x = (work.left + places % work.width).astype(np.uint32)
            y = (work.top + places // work.width).astype(np.uint32)
            total = np.zeros((3, places.size), np.float32)
            light = tracer.light(x, y)
            for sample in range(work.samples):
                total += light[:, sample]
            exposure = work.scene.camera.exposure / THOUSAND
            rows[start : start + places.size] = develop(total / np.float32(work.samples), exposure).T
    return Result(
        format=FORMAT,
        image_width=work.image_width,
        image_height=work.image_height,
        left=work.left,
        top=work.top,
        width=work.width,
        height=work.height,
        pixels=rows.tobytes(),
    )


def compute(data: bytes) -> bytes:
    """The worker: work bytes to result bytes. Raises ``BadWork``."""
    return pack(render(read_work(data)))
