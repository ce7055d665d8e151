"""One node: its pure brain (``core``), its shells (``net``, ``api``, ``journal``, ``workers``), and the commands."""
