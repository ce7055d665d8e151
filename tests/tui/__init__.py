"""The dashboard, driven by its keys against real nodes, and against answers made up for the worst cases."""
