"""What the tests of the rules and the dashboards share."""

from __future__ import annotations

import sys
from pathlib import Path

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))
