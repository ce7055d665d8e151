"""What one work of ``rays`` is, as bytes: the whole scene first, the rectangle last.

Works of one picture differ only in their last few bytes, so content-defined chunks of the scene are shared by all of
them and cross the network once. Every number is an integer, in thousandths where a scene needs fractions: there is
nothing in a work that two readers could round differently.
"""

import enum
from typing import Annotated, Final

from wire.canon import U16, EncodingError, Range, Size, record, unpack
from wire.errors import Refused
from wire.limits import (
    RAYS_BOUNCES_MAX,
    RAYS_COST_MAX_SEGMENTS,
    RAYS_IMAGE_MAX_SIDE,
    RAYS_SAMPLES_MAX,
    RAYS_SPHERES_MAX,
    RAYS_TEXTURE_MAX_SIDE,
    RESULT_MAX_BYTES,
)

FORMAT: Final = 1
THOUSAND: Final = 1_000
LIGHTS_MAX: Final = 4
_FAR: Final = 1_000_000
_TEXTURE_MAX_BYTES: Final = 3 * RAYS_TEXTURE_MAX_SIDE * RAYS_TEXTURE_MAX_SIDE
_PIXELS_MAX_BYTES: Final = RESULT_MAX_BYTES - 64
WORK_MAX_BYTES: Final = 2 * _TEXTURE_MAX_BYTES + 64 * RAYS_SPHERES_MAX + 4_096

Place = Annotated[int, Range(-_FAR, _FAR)]
Length = Annotated[int, Range(1, _FAR)]
Share = Annotated[int, Range(0, THOUSAND)]
ImageSide = Annotated[int, Range(1, RAYS_IMAGE_MAX_SIDE)]
ImagePlace = Annotated[int, Range(0, RAYS_IMAGE_MAX_SIDE - 1)]


class BadWork(Refused):
    """The work is not one this worker does; the code says which rule it breaks."""


class Kind(enum.IntEnum):
    """What a surface does to light."""

    MATT = 0  # scatters evenly under a clear coat; ``finish`` is the strength of the coat
    METAL = 1  # mirrors; ``finish`` is its roughness
    GLASS = 2  # refracts, index 1.5; ``finish`` unused
    LIGHT = 3  # shines on everything; at most ``LIGHTS_MAX`` spheres
    GLOW = 4  # is seen shining, directly or in mirrors, but lights nothing
    BUBBLE = 5  # a thin film: reflects at its rim, lets the rest pass straight


@record
class Point:
    """A place, in thousandths; y is up and the floor is y = 0."""

    x: Place
    y: Place
    z: Place


@record
class Material:
    """A colour in linear thousandths (above 1000 for what shines) and a finish in thousandths."""

    kind: Kind
    red: U16
    green: U16
    blue: U16
    finish: Share


@record
class Sphere:
    """A ball of one material."""

    centre: Point
    radius: Length
    material: Annotated[int, Range(0, RAYS_SPHERES_MAX - 1)]


@record
class Texture:
    """``side`` rows of ``side`` pixels of red, green, blue; the light of a byte v is (v/255) squared."""

    side: Annotated[int, Range(2, RAYS_TEXTURE_MAX_SIDE)]
    pixels: Annotated[bytes, Size(12, _TEXTURE_MAX_BYTES)]


@record
class Sky:
    """The upper half of the surroundings on a square (hemi-octahedral), times ``gain`` thousandths."""

    texture: Texture
    gain: U16


@record
class Floor:
    """The plane y = 0 with a repeating texture of ``span`` thousandths, a clear coat, and haze that wins at distance ``haze``."""

    texture: Texture
    span: Length
    coat: Share
    haze: Length


@record
class Camera:
    """An eye with a lens. ``width`` is the picture's width at distance 1000; what is ``focus`` away is sharp."""

    eye: Point
    target: Point
    width: Annotated[int, Range(1, 20_000)]
    lens_radius: Annotated[int, Range(0, _FAR)]
    focus: Length
    exposure: U16


@record
class Scene:
    """Everything there is to see. ``seed`` chooses the random numbers."""

    sky: Sky
    floor: Floor
    materials: Annotated[tuple[Material, ...], Size(0, RAYS_SPHERES_MAX)]
    spheres: Annotated[tuple[Sphere, ...], Size(0, RAYS_SPHERES_MAX)]
    camera: Camera
    seed: Annotated[int, Range(0, (1 << 32) - 1)]


@record
class Work:
    """Render one rectangle of a picture. The order of the fields is the point: what varies comes last."""

    format: Annotated[int, Range(FORMAT, FORMAT)]
    scene: Scene
    image_width: ImageSide
    image_height: ImageSide
    samples: Annotated[int, Range(1, RAYS_SAMPLES_MAX)]
    bounces: Annotated[int, Range(1, RAYS_BOUNCES_MAX)]
    left: ImagePlace
    top: ImagePlace
    width: ImageSide
    height: ImageSide


@record
class Result:
    """The rectangle's pixels: rows from the top, red, green, blue, a byte each."""

    format: Annotated[int, Range(FORMAT, FORMAT)]
    image_width: ImageSide
    image_height: ImageSide
    left: ImagePlace
    top: ImagePlace
    width: ImageSide
    height: ImageSide
    pixels: Annotated[bytes, Size(3, _PIXELS_MAX_BYTES)]


def _refuse_unless(holds: bool, code: str, sentence: str) -> None:
    if not holds:
        raise BadWork(code, sentence)


def check_scene(scene: Scene) -> None:
    """Raise ``BadWork`` unless the parts of the scene fit together."""
    for texture, name in ((scene.sky.texture, "sky"), (scene.floor.texture, "floor")):
        _refuse_unless(
            len(texture.pixels) == 3 * texture.side * texture.side,
            "bad-texture",
            f"the {name} has {len(texture.pixels)} bytes where {texture.side} x {texture.side} pixels need another number",
        )
    known = len(scene.materials)
    _refuse_unless(
        all(one.material < known for one in scene.spheres), "bad-material", "a sphere is of a material that is not there"
    )
    lights = sum(scene.materials[one.material].kind is Kind.LIGHT for one in scene.spheres)
    _refuse_unless(lights <= LIGHTS_MAX, "too-many-lights", f"{lights} lights are more than {LIGHTS_MAX}")
    eye, target = scene.camera.eye, scene.camera.target
    _refuse_unless(eye.y > 0, "bad-camera", "the eye is not above the floor")
    _refuse_unless((eye.x, eye.z) != (target.x, target.z), "bad-camera", "the eye looks straight up or down, or at itself")


def check_work(work: Work) -> None:
    """Raise ``BadWork`` unless the work is whole and affordable."""
    check_scene(work.scene)
    inside = work.left + work.width <= work.image_width and work.top + work.height <= work.image_height
    _refuse_unless(inside, "bad-rectangle", "the rectangle is not inside the picture")
    segments = work.width * work.height * work.samples * work.bounces
    _refuse_unless(
        segments <= RAYS_COST_MAX_SEGMENTS,
        "too-costly",
        f"up to {segments} ray segments are more than the {RAYS_COST_MAX_SEGMENTS} of one work; cut the picture finer",
    )
    _refuse_unless(
        3 * work.width * work.height <= _PIXELS_MAX_BYTES, "too-costly", "the result would be longer than results may be"
    )


def read_work(data: bytes) -> Work:
    """The work that ``data`` is. Raises ``BadWork`` with code not-a-work or the rule that is broken."""
    try:
        work = unpack(Work, data, WORK_MAX_BYTES)
    except EncodingError as error:
        raise BadWork("not-a-work", f"this is not a work of rays: {error.sentence}") from None
    check_work(work)
    return work


def read_result(data: bytes) -> Result:
    """The result that ``data`` is. Raises ``BadWork`` (not-a-result). Is it the one asked for? See ``check_result``."""
    try:
        result = unpack(Result, data, RESULT_MAX_BYTES)
    except EncodingError as error:
        raise BadWork("not-a-result", f"this is not a result of rays: {error.sentence}") from None
    inside = result.left + result.width <= result.image_width and result.top + result.height <= result.image_height
    whole = len(result.pixels) == 3 * result.width * result.height
    _refuse_unless(inside and whole, "not-a-result", "the result's pixels do not fill its rectangle")
    return result


def check_result(work_data: bytes, result_data: bytes) -> None:
    """Raise ``BadWork`` unless the result is of the very rectangle that the work asked for. Says nothing of the colours."""
    work, result = read_work(work_data), read_result(result_data)
    asked = (work.image_width, work.image_height, work.left, work.top, work.width, work.height)
    given = (result.image_width, result.image_height, result.left, result.top, result.width, result.height)
    _refuse_unless(asked == given, "other-rectangle", "the result is of another rectangle than the work")
