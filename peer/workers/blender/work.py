"""What one work of the Blender worker is, as bytes, and what its result must look like.

The scene comes first and what varies from tile to tile last, so works of one picture share all their chunks but the last. The
result is an OpenEXR file whose data window is the rectangle that was asked for, in the display window of the whole picture.
"""

from typing import Annotated, Final

from peer.workers.blender.openexr import BadImage, Image, Window, read
from wire.canon import EncodingError, Range, Size, record, unpack
from wire.errors import Refused
from wire.limits import (
    BLENDER_CHANNELS_MAX,
    BLENDER_SCENE_MAX_BYTES,
    BLENDER_SIDE_MAX,
    BLENDER_TILE_MAX_PIXELS,
    CONTENT_MAX_BYTES,
    RESULT_MAX_BYTES,
)

FORMAT: Final = 1
ARTICLE_ROOT: Final = "net.bitwrk/blender/1"
CLASSES: Final = {"512M": 1 << 29, "2G": 1 << 31, "8G": 1 << 33, "32G": 1 << 35}
"""Cost classes by name: the most rays (pixels x samples x bounces) of one tile."""

_FRAME_MAX: Final = 1_048_574  # Blender's own
_NAME_BYTES: Final = 255  # Blender's own, of scenes and view layers

Side = Annotated[int, Range(1, BLENDER_SIDE_MAX)]
Place = Annotated[int, Range(0, BLENDER_SIDE_MAX - 1)]
Name = Annotated[str, Size(1, _NAME_BYTES)]


class BadTile(Refused):
    """The work or the result is not what it should be; the code says which rule it breaks."""


@record
class Work:
    """Render one rectangle of one view layer of one frame. ``scene`` is an uncompressed .blend file with everything packed."""

    format: Annotated[int, Range(FORMAT, FORMAT)]
    scene: Annotated[bytes, Size(12, BLENDER_SCENE_MAX_BYTES)]
    scene_name: Name
    layer: Name
    image_width: Side
    image_height: Side
    frame: Annotated[int, Range(-_FRAME_MAX, _FRAME_MAX)]
    left: Place
    top: Place
    width: Side
    height: Side

    @property
    def tile(self) -> Window:
        """The rectangle, y pointing down."""
        return Window(self.left, self.top, self.width, self.height)


def article_of(version: str, cost_class: str) -> str:
    """The article of tiles for Blender ``version`` (at least major.minor) in a cost class. Raises ``BadTile``."""
    if cost_class not in CLASSES:
        raise BadTile("unknown-class", f"there is no cost class {cost_class!r}; choose one of {', '.join(CLASSES)}")
    return f"{ARTICLE_ROOT}/{'.'.join(version.split('.')[:2])}/{cost_class}"


def read_work(data: bytes) -> Work:
    """The work that ``data`` is. Raises ``BadTile``."""
    try:
        work = unpack(Work, data, CONTENT_MAX_BYTES)
    except EncodingError as error:
        raise BadTile("not-a-work", f"this is not a tile to render: {error.sentence}") from None
    if work.left + work.width > work.image_width or work.top + work.height > work.image_height:
        raise BadTile("bad-rectangle", "the tile is not inside the picture")
    if work.width * work.height > BLENDER_TILE_MAX_PIXELS:
        raise BadTile("too-costly", f"a tile has at most {BLENDER_TILE_MAX_PIXELS} pixels")
    return work


def read_result(data: bytes) -> Image:
    """The image that ``data`` is, safe to be given to other readers. Raises ``BadTile``."""
    if len(data) > RESULT_MAX_BYTES:
        raise BadTile("not-an-image", f"the result is longer than {RESULT_MAX_BYTES} bytes")
    try:
        return read(data, most_pixels=BLENDER_TILE_MAX_PIXELS, most_channels=BLENDER_CHANNELS_MAX)
    except BadImage as bad:
        raise BadTile("not-an-image", f"the result is not an image of a tile: {bad}") from None


def check_result(work_data: bytes, result_data: bytes) -> Image:
    """The image, if it is of the rectangle and the view layer that were asked for. Raises ``BadTile``; does not judge colours."""
    work, image = read_work(work_data), read_result(result_data)
    if image.data != work.tile or image.display != Window(0, 0, work.image_width, work.image_height):
        raise BadTile("other-rectangle", "the image is of another rectangle than the work")
    check_channels(image, work.layer)
    return image


def check_channels(image: Image, layer: str) -> None:
    """Raise ``BadTile`` unless every channel belongs to the layer and its picture is among them."""
    if not all(name.startswith(f"{layer}.") for name in image.channels):
        raise BadTile("other-layer", f"the image has channels of another view layer than {layer!r}")
    if not {f"{layer}.Combined.{one}" for one in "RGB"} <= set(image.channels):
        raise BadTile("no-colours", "the image has no colours")
