"""One node's brain, pure: trades as tables, and a thin router between the cores of the rooms."""
