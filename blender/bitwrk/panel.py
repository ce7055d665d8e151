# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist sees: how the node is, what a picture can cost, what would be missing."""

import threading
import time

import bpy

from . import engine, settings
from .core import assets, money
from .core.node import NodeError
from .packing import assets as find_assets

ASK_EVERY_S = 2.0

# What the node said last. Asked in a thread, because drawing must never wait for a socket.
_seen = {"at": 0.0, "asking": False, "words": "Looking for the node …", "good": False, "balance": None}


def _ask(client):
    try:
        status = client.listing("status", timeout=2.0)
        _seen["good"] = True
        _seen["balance"] = status.get("balance_sat")
        _seen["words"] = "Node is running, {} peers, {} money".format(status.get("peers", 0), status.get("money", "no"))
    except NodeError as error:
        _seen["good"], _seen["balance"], _seen["words"] = False, None, error.sentence
    _seen["at"], _seen["asking"] = time.monotonic(), False


def look():
    """Ask the node how it is, at most every two seconds, without waiting for it."""
    if not _seen["asking"] and time.monotonic() - _seen["at"] > ASK_EVERY_S:
        _seen["asking"] = True
        threading.Thread(target=_ask, args=(settings.client(),), name="bitwrk-status", daemon=True).start()
    return _seen


class BITWRK_OT_check_files(bpy.types.Operator):
    """List the files that sellers would not have."""

    bl_idname = "bitwrk.check_files"
    bl_label = "Check Files"

    def execute(self, context):
        """Report each of them."""
        lost = assets.missing(find_assets())
        for sentence in lost:
            self.report({"WARNING"}, sentence)
        if not lost:
            self.report({"INFO"}, "All files are there")
        return {"FINISHED"}


class BITWRK_PT_market(bpy.types.Panel):
    """Everything on one panel."""

    bl_label = "BitWrk"
    bl_space_type = "PROPERTIES"
    bl_region_type = "WINDOW"
    bl_context = "render"
    COMPAT_ENGINES = {engine.ENGINE}

    @classmethod
    def poll(cls, context):
        """Only with our engine."""
        return context.engine in cls.COMPAT_ENGINES

    def draw(self, context):
        """Node first, then money, then tiles."""
        layout, chosen = self.layout, context.scene.bitwrk
        layout.use_property_split = True
        node = look()
        layout.label(text=node["words"], icon="CHECKMARK" if node["good"] else "ERROR")
        if node["balance"] is not None:
            layout.label(text="Balance: " + money.show_msat(1_000 * node["balance"]))
        layout.prop(chosen, "price")
        layout.prop(chosen, "maximum")
        layout.prop(chosen, "cost_class")
        layout.prop(chosen, "tiles")
        layout.prop(chosen, "at_once")
        layout.prop(chosen, "wait")
        layout.prop(chosen, "allow_missing")
        try:
            article, tiles = engine.plan(context.scene)
            price, maximum = engine.amounts(context.scene)
        except engine.Problem as problem:
            layout.label(text=str(problem), icon="ERROR")
        else:
            cost = "free" if not price else f"at most {money.show_msat(min(maximum, price * len(tiles)))}"
            layout.label(text=f"{len(tiles)} tiles per frame, {cost}")
            if price and maximum < price * len(tiles):
                layout.label(text="The maximum may end the frame before all tiles are bought", icon="ERROR")
            layout.label(text=article)
        layout.operator("bitwrk.check_files")


CLASSES = (BITWRK_OT_check_files, BITWRK_PT_market)


def register():
    """Show them."""
    for one in CLASSES:
        bpy.utils.register_class(one)


def unregister():
    """Hide them."""
    for one in reversed(CLASSES):
        bpy.utils.unregister_class(one)
