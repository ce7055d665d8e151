"""What runs inside Blender; licensed like Blender, see LICENSE in this folder. Never imported by the node."""
