# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside Blender: make the scene of the tests and save it. Arguments: folder, width, height, samples."""

import array
import math
import os
import random
import sys

import bpy
import mathutils

folder, width, height, samples = sys.argv[sys.argv.index("--") + 1 :][:4]
dice = random.Random(7)

bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = int(width), int(height), 100
scene.cycles.samples = int(samples)
scene.cycles.seed = 42
scene.cycles.use_denoising = False
scene.cycles.use_adaptive_sampling = True
scene.frame_set(3)


def texture(name, side):
    image = bpy.data.images.new(name, side, side)
    values = array.array("f")
    for row in range(side):
        for column in range(side):
            light = 1.0 if (row // 8 + column // 8) % 2 else 0.15
            values.extend((light * dice.uniform(0.8, 1), light * 0.6, 0.3 + 0.5 * row / side, 1.0))
    image.pixels.foreach_set(values)
    image.filepath_raw = os.path.join(folder, name + ".png")
    image.file_format = "PNG"
    image.save()
    # As an artist's file would have it: an image beside the .blend, not inside.
    image.source = "FILE"
    return image


def material(name, image=None, rough=0.5, metal=0.0, colour=(0.8, 0.8, 0.8)):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Roughness"].default_value = rough
    shader.inputs["Metallic"].default_value = metal
    shader.inputs["Base Color"].default_value = (*colour, 1)
    if image:
        picture = nodes.new("ShaderNodeTexImage")
        picture.image = image
        links.new(picture.outputs["Color"], shader.inputs["Base Color"])
    return made


checks, tiles = texture("checks", 64), texture("tiles", 64)
bpy.ops.mesh.primitive_plane_add(size=14)
bpy.context.object.data.materials.append(material("floor", tiles, 0.4))
looks = [
    material("textured", checks, 0.3),
    material("mirror", None, 0.05, 1.0, (0.9, 0.8, 0.6)),
    material("red", None, 0.4, 0.0, (0.8, 0.1, 0.1)),
    material("blue", None, 0.2, 0.0, (0.1, 0.2, 0.8)),
]
for number in range(9):
    turn = 2 * math.pi * number / 9
    place = (2.7 * math.cos(turn), 2.7 * math.sin(turn), 0.6)
    bpy.ops.mesh.primitive_uv_sphere_add(segments=48, ring_count=24, radius=0.6, location=place)
    ball = bpy.context.object
    bpy.ops.object.shade_smooth()
    ball.data.materials.append(looks[number % len(looks)])
    ball.rotation_euler = (0, 0, 0)
    ball.keyframe_insert("rotation_euler", frame=1)
    ball.rotation_euler = (1, 0.5, 2)
    ball.keyframe_insert("rotation_euler", frame=24)
bpy.ops.mesh.primitive_monkey_add(size=2.4, location=(0, 0, 1.15), rotation=(-0.5, 0, 0.6))
monkey = bpy.context.object
monkey.data.materials.append(looks[0])
monkey.modifiers.new("smooth", "SUBSURF").render_levels = 2
bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.2, 0.4))
bpy.context.object.data.energy = 1.8
bpy.ops.object.light_add(type="AREA", location=(-4, -3, 5), rotation=(0.6, -0.6, 0))
bpy.context.object.data.energy = 140
bpy.ops.object.camera_add(location=(5.6, -6.6, 4.6))
scene.camera = bpy.context.object
scene.camera.rotation_euler = (mathutils.Vector((0, 0, 0.75)) - scene.camera.location).to_track_quat("-Z", "Y").to_euler()
world = scene.world = bpy.data.worlds.new("sky")
world.use_nodes = True
world.node_tree.nodes["Background"].inputs[0].default_value = (0.3, 0.5, 0.8, 1)
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "scene.blend"), compress=False, relative_remap=True)
sys.stdout.flush()
os._exit(0)
