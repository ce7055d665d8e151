# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside Blender: make a scene that tries to get out in every way we know. Arguments: folder, and where it tries to write."""

import os
import sys

import bpy

folder, target = sys.argv[sys.argv.index("--") + 1 :][:2]


def attempt(name):
    return "import os\nos.system('touch %s')\n" % os.path.join(target, name)


bpy.ops.wm.read_factory_settings(use_empty=False)
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 32, 24, 100
scene.cycles.samples = 1
scene.cycles.use_denoising = False

# A text that Blender runs when the file is opened.
registered = bpy.data.texts.new("registered.py")
registered.write(attempt("text-block"))
registered.use_module = True

# A driver that needs Python.
driver = bpy.data.objects["Cube"].driver_add("location", 0).driver
driver.type = "SCRIPTED"
driver.expression = "__import__('os').system('touch %s') * 0" % os.path.join(target, "driver")

# A style of lines, which is a program.
style = bpy.data.texts.new("style.py")
style.write(attempt("freestyle"))
scene.render.use_freestyle = True
layer = scene.view_layers[0]
layer.use_freestyle = True
layer.freestyle_settings.mode = "SCRIPT"
module = layer.freestyle_settings.modules.new()
module.script = style

# A compositor that writes where it likes.
if bpy.app.version >= (5, 0, 0):
    tree = scene.compositing_node_group = bpy.data.node_groups.new("writer", "CompositorNodeTree")
    source = tree.nodes.new("CompositorNodeRLayers")
    output = tree.nodes.new("CompositorNodeOutputFile")
    output.directory, output.file_name = target, "file-output"
    output.file_output_items.new("RGBA", "Image")
else:
    scene.use_nodes = True
    tree = scene.node_tree
    source = next(node for node in tree.nodes if node.type == "R_LAYERS")
    output = tree.nodes.new("CompositorNodeOutputFile")
    output.base_path = target
    output.file_slots[0].path = "file-output"
tree.links.new(source.outputs["Image"], output.inputs[0])
scene.render.use_compositing = True

# A material that is a program, and an image from outside.
material = bpy.data.objects["Cube"].data.materials[0]
material.use_nodes = True
image = bpy.data.images.new("passwd", 1, 1)
image.source = "FILE"
image.filepath = "/etc/passwd"
material.node_tree.nodes.new("ShaderNodeTexImage").image = image
scene.cycles.shading_system = True
program = bpy.data.texts.new("look.osl")
program.write('shader look(output color C = 0) { fprintf("%s", "x"); }' % os.path.join(target, "osl"))
material.node_tree.nodes.new("ShaderNodeScript").script = program

# The picture itself goes elsewhere too, with everything it knows in its header.
scene.render.filepath = os.path.join(target, "render-path")
scene.render.use_stamp = True
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "hostile.blend"), compress=False)
sys.stdout.flush()
os._exit(0)
