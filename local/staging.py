"""Gives each function the layout that the template gives it, under a name that can be imported.

In its image, gh-push is the package `function`, with `sdk` inside. Here `gh_push` is a folder of links
to the same files: tests, the type checker and local runs all import what is deployed.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGED = ROOT / ".cloud" / "staged"


def stage(target: Path = STAGED) -> Path:
    """Link every function folder (one with a handler.py) below `target`; returns it."""
    for handler in sorted(ROOT.glob("*/handler.py")):
        package = target / handler.parent.name.replace("-", "_")
        shutil.rmtree(package, ignore_errors=True)
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        for file in (*handler.parent.iterdir(), ROOT / "sdk"):
            if file.name != "__pycache__":
                (package / file.name).symlink_to(file)
    # Python remembers a folder of sys.path that was not there when it first looked, as in a fresh clone.
    importlib.invalidate_caches()
    return target


if __name__ == "__main__":
    stage()
