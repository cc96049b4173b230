"""What the tests of the images and of compose share."""

from __future__ import annotations

import sys
from pathlib import Path

_DEPLOY = Path(__file__).resolve().parents[2]
# They are scripts of containers, and in no package.
sys.path[:0] = [str(_DEPLOY / "compose"), str(_DEPLOY / "docker"), str(Path(__file__).parent)]
