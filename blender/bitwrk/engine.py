# SPDX-License-Identifier: GPL-3.0-or-later
"""The render engine: takes what Blender wants rendered, buys it as tiles, shows each as it comes."""

import os
import shutil
import tempfile
import time

import bpy

from . import settings
from .core import assets, frame, money, run, tiling, work
from .core.budget import Budget
from .core.node import NodeError
from .packing import PackingFailed, pack
from .packing import assets as find_assets

ENGINE = "BITWRK_RENDER"
POLL_S = 0.1

# The file packed for the frames and view layers of one rendering, and the folder it is in.
_packed: dict = {}


class Problem(Exception):
    """Why there is no picture, in words for the artist."""


def forget_packed(*_):
    """A rendering begins or has ended: the file of the last one is of no use any more."""
    folder = _packed.pop("folder", None)
    _packed.clear()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def packed_scene() -> str:
    """The file to send. One rendering packs once, unless code of the artist changes the scene from frame to frame."""
    if bpy.app.handlers.frame_change_pre or bpy.app.handlers.frame_change_post:
        forget_packed()
    if "file" not in _packed:
        _packed["folder"] = tempfile.mkdtemp(prefix="bitwrk-")
        _packed["file"] = pack(_packed["folder"])
    return _packed["file"]


def picture_size(scene) -> tuple:
    """Width and height of the whole picture."""
    render = scene.render
    return (
        render.resolution_x * render.resolution_percentage // 100,
        render.resolution_y * render.resolution_percentage // 100,
    )


def region(scene) -> tuple:
    """Left, top, width and height of what is rendered: all, or the border the artist has drawn. y points down."""
    width, height = picture_size(scene)
    render = scene.render
    if not render.use_border:
        return 0, 0, width, height
    left, right = int(render.border_min_x * width), int(render.border_max_x * width)
    low, high = int(render.border_min_y * height), int(render.border_max_y * height)
    return left, height - high, right - left, high - low


def plan(scene) -> tuple:
    """The article and the tiles of a scene. Raises ``Problem``."""
    chosen = scene.bitwrk
    left, top, width, height = region(scene)
    if width < 1 or height < 1:
        raise Problem("the render border is empty")
    rays = tiling.rays_per_pixel(scene.cycles.samples, scene.cycles.max_bounces)
    try:
        most = tiling.pixels_per_tile(chosen.cost_class, rays, width * height, chosen.tiles)
    except tiling.TooCostly as error:
        raise Problem(str(error)) from None
    tiles = tiling.cut(left, top, width, height, *tiling.grid(width, height, most))
    return tiling.article(bpy.app.version, chosen.cost_class), tiles


def amounts(scene) -> tuple:
    """Price and maximum in millisatoshi. Raises ``Problem``."""
    try:
        price, maximum = money.parse_msat(scene.bitwrk.price), money.parse_msat(scene.bitwrk.maximum)
    except money.BadAmount as error:
        raise Problem(str(error)) from None
    if price and maximum < price:
        raise Problem("set a maximum spend of at least the price of one tile")
    return price, maximum


def cycles_limits(scene) -> str:
    """What the artist should know about differences to rendering here, or an empty text."""
    if scene.cycles.use_denoising:
        return "BitWrk does not denoise tiles; use the compositor's Denoise node on the finished picture"
    return ""


class BitwrkEngine(bpy.types.RenderEngine):
    """Renders on the market."""

    bl_idname = ENGINE
    bl_label = "BitWrk"
    bl_use_preview = False
    bl_use_postprocess = True
    bl_use_eevee_viewport = True
    bl_use_shading_nodes_custom = False

    def update_render_passes(self, scene=None, renderlayer=None):
        """The same passes as Cycles."""
        import cycles.engine

        try:
            cycles.engine.register_passes(self, scene, renderlayer)
        except AttributeError:
            for one in cycles.engine.list_render_passes(scene, renderlayer):
                self.register_pass(scene, renderlayer, *one)

    def render(self, depsgraph):
        """Called by Blender for each frame and view layer, in a thread of its own."""
        if self.is_preview:
            return
        scene = depsgraph.scene.original if hasattr(depsgraph.scene, "original") else depsgraph.scene
        try:
            self._render(scene, depsgraph.view_layer_eval.name)
        except (Problem, PackingFailed, NodeError) as problem:
            self.report({"ERROR"}, f"BitWrk: {problem}")
        finally:
            if not self.is_animation and scene.view_layers and depsgraph.view_layer_eval.name == scene.view_layers[-1].name:
                forget_packed()

    def _render(self, scene, layer):
        if scene.render.use_multiview:
            raise Problem("stereoscopy is not supported")
        chosen = scene.bitwrk
        price, maximum = amounts(scene)
        article, tiles = plan(scene)
        lost = assets.missing(find_assets())
        if lost and not chosen.allow_missing:
            raise Problem(f"{len(lost)} files would be missing at the sellers': {'; '.join(lost[:3])}")
        if words := cycles_limits(scene):
            self.report({"INFO"}, f"BitWrk: {words}")
        self.update_stats("", "BitWrk: packing the scene")
        file = packed_scene()
        width, height = picture_size(scene)
        picture = work.Picture(os.path.getsize(file), scene.name, layer, width, height, scene.frame_current)
        order = run.Order(article, picture, file, price, float(chosen.wait), chosen.at_once)
        course = run.Run(settings.client(), order, frame.Frame(tiles), Budget(maximum, article))
        course.start()
        try:
            self._follow(course, region(scene))
        finally:
            course.close()
        if course.frame.failure:
            raise Problem(course.frame.failure)
        if len(course.makers) > 1:
            self.report({"INFO"}, "BitWrk: sellers had different builds or processors; tiles may differ in the last digits")

    def _follow(self, course, area):
        """Show tiles as they come, until there are no more or the artist has seen enough."""
        left, top, _, height = area
        while not course.frame.over:
            if self.test_break():
                course.cancel()
                return
            for delivery in course.step(POLL_S):
                tile = course.frame.entries[delivery.index].tile
                self._show(delivery, tile.left - left, top + height - tile.top - tile.height, tile)
            done, total = course.frame.count(frame.State.DONE), len(course.frame.entries)
            self.update_progress(done / total)
            self.update_stats("", "BitWrk: " + course.words())

    def _show(self, delivery, left, low, tile):
        """Put a tile into the picture. Its file has been checked to be what it should be."""
        path = os.path.join(_packed["folder"], "tile_%d_%d.exr" % (delivery.index, time.monotonic_ns()))
        with open(path, "wb") as file:
            file.write(delivery.data)
        try:
            result = self.begin_result(left, low, tile.width, tile.height)
            result.load_from_file(path)
            self.end_result(result)
        finally:
            os.unlink(path)


def cycles_panels():
    """Everything that Blender shows for Cycles, so that the artist finds it under this engine too."""
    for name in dir(bpy.types):
        one = getattr(bpy.types, name)
        if "CYCLES" in getattr(one, "COMPAT_ENGINES", ()):
            yield one


def register():
    """Add the engine, and show Cycles' panels with it."""
    bpy.utils.register_class(BitwrkEngine)
    for one in cycles_panels():
        one.COMPAT_ENGINES.add(ENGINE)
    bpy.app.handlers.render_init.append(forget_packed)
    bpy.app.handlers.render_complete.append(forget_packed)
    bpy.app.handlers.render_cancel.append(forget_packed)


def unregister():
    """Take everything back."""
    for handlers in (bpy.app.handlers.render_init, bpy.app.handlers.render_complete, bpy.app.handlers.render_cancel):
        if forget_packed in handlers:
            handlers.remove(forget_packed)
    forget_packed()
    for one in cycles_panels():
        one.COMPAT_ENGINES.discard(ENGINE)
    bpy.utils.unregister_class(BitwrkEngine)
