"""What an installation weighs: the table of docs/deployment.md, from the wheels of ``make wheel``.

    make wheel && python packages/sizes.py

Installs the package's wheel with what it asks for into an environment that is made for it and thrown away, and counts
what pip put into place, without what Python compiles later.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "deployment.md"
MARKED = re.compile(r"(<!-- table sizes:[^>]*-->\n).*(<!-- /table sizes -->)", re.DOTALL)
SHOWN = ("metaedit_fast", "numpy", "onnx", "onnxruntime", "pyarrow")
INSTALLED = """
import json
from importlib.metadata import distributions

def size(distribution):
    places = (file.locate() for file in distribution.files or ())
    return sum(place.stat().st_size for place in places if place.is_file())

print(json.dumps({d.name: (d.version, size(d)) for d in distributions() if d.name not in ("pip", "setuptools")}))
"""


def main() -> None:
    wheels = {name: _wheel(name) for name in ("metaedit_fast", "metaedit_fast_editors")}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", wheels["metaedit_fast"]]
        subprocess.run(install, check=True)
        found = subprocess.run([python, "-c", INSTALLED], check=True, capture_output=True, text=True).stdout
    installed: dict[str, tuple[str, int]] = json.loads(found)
    rows = [(f"the wheel of {name}, packed", "", path.stat().st_size) for name, path in wheels.items()]
    rows += [(f"{name}, installed", *installed[name]) for name in SHOWN]
    others = {name: size for name, (_, size) in installed.items() if name not in SHOWN}
    rows.append((f"{len(others)} smaller packages", "", sum(others.values())))
    rows.append(("**the base installation**", "", sum(size for _, size in installed.values())))
    text = "| | version | MB |\n|---|---|---:|\n"
    text += "".join(f"| {name} | {version} | {size / 1e6:.2f} |\n" for name, version, size in rows)
    text += f"\nPython {platform.python_version()}, {platform.system()} {platform.machine()}. "
    text += "Made by `make wheel && python packages/sizes.py`; 1 MB is a million bytes.\n"
    page, replaced = MARKED.subn(lambda m: m[1] + text + m[2], PAGE.read_text())
    if replaced != 1:
        raise ValueError(f"{PAGE}: expected the markers of one table sizes, got {replaced}")
    PAGE.write_text(page)


def _wheel(name: str) -> Path:
    found = list((ROOT / "dist").glob(f"{name}-*.whl"))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{ROOT / 'dist'}: expected one wheel of {name}, got {len(found)}; make wheel builds it"
        )
    return found[0]


if __name__ == "__main__":
    main()
