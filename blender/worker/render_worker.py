# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders tiles of one scene inside Blender, for a node that sells them. One process per scene; the scene stays loaded.

    blender --background --factory-startup --disable-autoexec -noaudio --python render_worker.py
    python render_worker.py                        where Blender is the module bpy

Talks on standard input and output, a line of JSON at a time, some lines followed by as many bytes as they say:

    says   BITWRK/1 {"version": "4.5.15", "build": "5afeabba6097", "kernel": "avx2"}     once, when ready
    hears  {"do": "scene", "bytes": n} and the .blend file                            says {"ok": true}
    hears  {"do": "tile", "scene_name": …, "layer": …, "image_width": …, …}           says {"ok": true, "bytes": n, …}, the file
    says   {"ok": false, "code": …, "sentence": …}                                    when it will not or cannot

It trusts nothing in the scene: whatever could run code, write files, or change from run to run is switched off after loading, and
the cost is computed here from the scene itself. That is the second wall; the first is the sandbox around this process.
"""

import json
import os
import sys

import bpy

PROTOCOL = "BITWRK/1"
SCENE_FILE = "scene.blend"
TILE_FILE = "tile.exr"
# With adaptive sampling neighbouring pixels decide together whether they are finished; beyond this margin none matters.
ADAPTIVE_MARGIN = 8


class Refused(Exception):
    """A request that is not served, with a short word and a sentence."""

    def __init__(self, code, sentence):
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def kernel_class():
    """Which of Cycles' kernels for the processor is in use; results of different ones differ in the last digits."""
    import _cycles

    told = ""
    for line in _cycles.system_info().splitlines():
        if line.startswith("CPU device capabilities:"):
            told = line.split(":", 1)[1]
    capabilities = told.upper().replace(".", "").split()
    if "AVX2" in capabilities and "CYCLES_CPU_NO_AVX2" not in os.environ:
        return "avx2"
    for name in ("SSE42", "AVX", "SSE41", "SSE3", "SSE2"):
        if name in capabilities:
            return name.lower()
    return os.uname().machine.lower()


def facts():
    """What this Blender is."""
    version = ".".join(str(part) for part in bpy.app.version)
    return {"version": version, "build": bpy.app.build_hash.decode("ascii", "replace"), "kernel": kernel_class()}


def load(path):
    """Open a scene without running anything in it."""
    try:
        bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False)
    except RuntimeError as error:
        raise Refused("bad-scene", "Blender cannot open the scene: %s" % str(error).strip()) from None
    finally:
        os.unlink(path)


def quiet(thing, **values):
    """Set attributes that not every version of Blender has."""
    for name, value in values.items():
        if hasattr(thing, name):
            setattr(thing, name, value)


def tame(scene, layer):
    """Switch off what could run code, write files, or differ from one run to the next."""
    render = scene.render
    render.engine = "CYCLES"
    quiet(
        render,
        use_compositing=False,
        use_sequencer=False,
        use_freestyle=False,
        use_file_extension=False,
        use_overwrite=True,
        use_placeholder=False,
        use_single_layer=False,
        use_multiview=False,
        use_persistent_data=True,
        use_render_cache=False,
        use_save_buffers=False,
        dither_intensity=0.0,
    )
    for name in dir(render):
        if name.startswith("use_stamp"):
            setattr(render, name, False)
    if bpy.app.version >= (5, 0, 0):
        quiet(scene, compositing_node_group=None)
    else:
        scene.use_nodes = False
    quiet(
        scene.cycles,
        device="CPU",
        shading_system=False,
        use_denoising=False,
        use_guiding=False,
        use_auto_tile=False,
        time_limit=0.0,
        use_sample_subset=False,
        scrambling_distance=1.0,
        auto_scrambling_distance=False,
        feature_set="SUPPORTED",
    )
    for one in scene.view_layers:
        one.use = one == layer
        quiet(one, use_freestyle=False)
        quiet(one.cycles, use_denoising=False)
    settings = render.image_settings
    quiet(settings, media_type="MULTI_LAYER_IMAGE")
    settings.file_format = "OPEN_EXR_MULTILAYER"
    settings.color_depth = "32"
    settings.exr_codec = "ZIP"
    # Since 5.0 passes may go to parts of their own; our readers know one part.
    quiet(settings, use_preview=False, use_exr_interleave=True)


def rays_per_pixel(scene):
    """The cost of a pixel: samples times bounces, as the add-on computes it too."""
    return max(1, scene.cycles.samples) * max(1, scene.cycles.max_bounces)


def size_of(scene):
    """Width and height of the picture as Blender rounds them."""
    render = scene.render
    return (
        render.resolution_x * render.resolution_percentage // 100,
        render.resolution_y * render.resolution_percentage // 100,
    )


def margin_of(scene, left, top, width, height, image_width, image_height):
    """The rectangle to render so that the one asked for comes out as in the whole picture."""
    margin = ADAPTIVE_MARGIN if scene.cycles.use_adaptive_sampling else 0
    right, bottom = min(image_width, left + width + margin), min(image_height, top + height + margin)
    left, top = max(0, left - margin), max(0, top - margin)
    return left, top, right - left, bottom - top


def set_border(render, left, top, width, height, image_width, image_height):
    """Limit rendering to a rectangle whose y points down. Half a pixel keeps rounding away from its edges."""
    low, high = image_height - top - height, image_height - top
    render.use_border = True
    render.use_crop_to_border = True
    render.border_min_x = (left + 0.5) / image_width if left else 0.0
    render.border_min_y = (low + 0.5) / image_height if low else 0.0
    render.border_max_x = (left + width + 0.5) / image_width if left + width < image_width else 1.0
    render.border_max_y = (high + 0.5) / image_height if high < image_height else 1.0


def render_tile(asked):
    """The file of a tile and the rectangle it shows, which may be larger than the one asked for. Raises ``Refused``."""
    scene = bpy.data.scenes.get(asked["scene_name"])
    layer = scene and scene.view_layers.get(asked["layer"])
    if layer is None:
        raise Refused("bad-scene", "the file has no such scene or view layer")
    if scene.camera is None:
        raise Refused("bad-scene", "the scene has no camera")
    tame(scene, layer)
    image = (asked["image_width"], asked["image_height"])
    if size_of(scene) != image:
        raise Refused("wrong-size", "the scene's picture has %d x %d pixels and not %d x %d" % (*size_of(scene), *image))
    tile = (asked["left"], asked["top"], asked["width"], asked["height"])
    rays = asked["width"] * asked["height"] * rays_per_pixel(scene)
    if rays > asked["rays_most"]:
        raise Refused("too-costly", "the tile costs %d rays, more than the %d of this article" % (rays, asked["rays_most"]))
    shown = margin_of(scene, *tile, *image)
    set_border(scene.render, *shown, *image)
    if bpy.context.window is not None:
        bpy.context.window.scene = scene
    scene.frame_set(asked["frame"])
    # Animation of these very settings must not undo them.
    tame(scene, layer)
    set_border(scene.render, *shown, *image)
    scene.render.threads_mode = "FIXED"
    scene.render.threads = asked["threads"]
    scene.render.filepath = os.path.abspath(TILE_FILE)
    try:
        bpy.ops.render.render(write_still=True, scene=scene.name)
        with open(TILE_FILE, "rb") as file:
            data = file.read()
        os.unlink(TILE_FILE)
    except (RuntimeError, OSError) as error:
        raise Refused("render-failed", "Blender did not render the tile: %s" % str(error).strip()) from None
    return data, dict(zip(("left", "top", "width", "height"), shown))


def read_exactly(works, length):
    """That many bytes, or the end of this process."""
    data = works.read(length)
    if len(data) != length:
        os._exit(0)
    return data


def serve(works, answers):
    """Answer until nothing more comes."""

    def say(told, data=b"", head=""):
        answers.write(head.encode() + json.dumps(told).encode() + b"\n" + data)
        answers.flush()

    say(facts(), head=PROTOCOL + " ")
    while line := works.readline():
        try:
            asked = json.loads(line)
            if asked["do"] == "scene":
                left = asked["bytes"]
                with open(SCENE_FILE, "wb") as file:
                    while left:
                        left -= file.write(read_exactly(works, min(left, 1 << 20)))
                load(os.path.abspath(SCENE_FILE))
                say({"ok": True})
            else:
                data, shown = render_tile(asked)
                say({"ok": True, "bytes": len(data), **shown}, data)
        except Refused as refused:
            say({"ok": False, "code": refused.code, "sentence": refused.sentence[:200]})


def main():
    """Keep standard output for answers; whatever Blender prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    sys.stdout.flush()
    os.dup2(2, 1)
    os.chdir(os.environ.get("TMPDIR", "."))
    import addon_utils

    addon_utils.enable("cycles")
    serve(sys.stdin.buffer, answers)
    # Not the ordinary way out: Blender's own clean-up has been seen to hang after hostile scenes.
    os._exit(0)


main()
