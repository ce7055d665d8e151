# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the add-on: python blender/build.py [folder, dist by default]

bitwrk-addon-X.zip       for Blender 3.4 to 4.1, and for any later one under "Install from Disk" as a legacy add-on
bitwrk-extension-X.zip   for Blender 4.2 and later, as an extension

The same source gives the same bytes, on any machine and at any time.
"""

import ast
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "bitwrk"
LONG_AGO = (1980, 1, 1, 0, 0, 0)


def version() -> str:
    """The version in ``bl_info``."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "bl_info":
            return ".".join(str(part) for part in ast.literal_eval(node.value)["version"])
    raise SystemExit("there is no bl_info")


def contents() -> dict:
    """Every file of the add-on by its place in the archive."""
    found = {"LICENSE": (HERE / "LICENSE").read_bytes()}
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and path.suffix in {".py", ".toml"}:
            found[path.relative_to(SOURCE).as_posix()] = path.read_bytes()
    return found


def write(target: Path, top: str, files: dict) -> None:
    """An archive of ``files`` below the folder ``top``."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(top + name, LONG_AGO)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            # Stored and not compressed: what a compressor makes depends on the version of its library.
            archive.writestr(entry, files[name])


def build(folder: Path) -> tuple:
    """Both archives; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files, name = contents(), version()
    legacy, extension = folder / f"bitwrk-addon-{name}.zip", folder / f"bitwrk-extension-{name}.zip"
    write(legacy, "bitwrk/", files)
    write(extension, "", files)
    return legacy, extension


if __name__ == "__main__":
    for path in build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "dist"):
        print(path)
