"""What is shipped: the rooms, and nothing that is only ours to test with or under another licence."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEVER = ("tests", "blender", "docs", "requirements")


def test_the_wheel_holds_the_rooms_and_no_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"wire", "dht", "orderbook", "escrow", "cafs", "peer"} <= tops
    assert not tops & set(NEVER)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(not name.endswith((".so", ".blend")) for name in names)
