"""The local API: HTTP on the loopback interface, for programs on the owner's machine."""
