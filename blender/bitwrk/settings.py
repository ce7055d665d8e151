# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist decides. Where the node lives is a preference of the machine; money and tiles are settings of the scene.

No secret is ever kept here: scenes travel, and preferences are copied.
"""

import bpy

from .core import node, tiling


class BitwrkPreferences(bpy.types.AddonPreferences):
    """Settings of this machine."""

    bl_idname = __package__

    home: bpy.props.StringProperty(
        name="Home of the node",
        description="Folder of the node on this machine, where its port and token are read; empty for the usual one",
        subtype="DIR_PATH",
        default="",
    )

    def draw(self, context):
        """Shown in the preferences."""
        self.layout.prop(self, "home")
        if not self.home:
            self.layout.label(text=f"The usual one is {node.default_home()}")


class BitwrkSettings(bpy.types.PropertyGroup):
    """Settings of a scene."""

    price: bpy.props.StringProperty(
        name="Price per tile",
        description="The most you pay for one tile, such as 'uBTC 340' or 'sat 20'; empty to ask for free work only",
        default="",
    )
    maximum: bpy.props.StringProperty(
        name="Maximum spend",
        description="One rendering never costs more than this, such as 'mBTC 5'",
        default="",
    )
    cost_class: bpy.props.EnumProperty(
        name="Tile cost",
        description="The most rays (pixels x samples x bounces) of one tile; sellers offer each class for itself",
        items=[(name, name, f"At most {name} rays in a tile") for name in tiling.CLASSES],
        default="2G",
    )
    tiles: bpy.props.IntProperty(
        name="Tiles at least",
        description="Cut the picture into at least this many tiles, so that many sellers can work at once",
        default=16,
        min=1,
        max=4096,
    )
    at_once: bpy.props.IntProperty(
        name="Tiles at once", description="How many tiles are on the market at the same time", default=16, min=1, max=256
    )
    wait: bpy.props.IntProperty(
        name="Look for a seller", description="Seconds to look for a seller of each tile", default=60, min=1, max=86_400
    )
    allow_missing: bpy.props.BoolProperty(
        name="Render without missing files",
        description="Render although some files of the scene are missing or cannot be sent",
        default=False,
    )


CLASSES = (BitwrkPreferences, BitwrkSettings)


def client() -> node.NodeClient:
    """The node that the preferences point to."""
    addon = bpy.context.preferences.addons.get(__package__)
    home = addon.preferences.home if addon else ""
    return node.NodeClient(bpy.path.abspath(home) if home else "")


def register():
    """Add the settings to every scene."""
    for one in CLASSES:
        bpy.utils.register_class(one)
    bpy.types.Scene.bitwrk = bpy.props.PointerProperty(type=BitwrkSettings)


def unregister():
    """Take them away again."""
    del bpy.types.Scene.bitwrk
    for one in reversed(CLASSES):
        bpy.utils.unregister_class(one)
