# SPDX-License-Identifier: GPL-3.0-or-later
"""BitWrk for Blender: F12 renders on other people's computers, through the node on this one.

``core`` is plain Python and can be imported without Blender; everything else is a thin layer over it.
"""

bl_info = {
    "name": "BitWrk",
    "author": "The BitWrk authors",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "Properties > Render > Render Engine",
    "description": "Render on other people's computers, tile by tile, for a price you set",
    "category": "Render",
}


def register():
    """Called by Blender when the add-on is switched on."""
    from . import engine, panel, settings

    settings.register()
    engine.register()
    panel.register()


def unregister():
    """Called by Blender when the add-on is switched off."""
    from . import engine, panel, settings

    panel.unregister()
    engine.unregister()
    settings.unregister()
