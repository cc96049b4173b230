"""What the tests of the adapters share."""

from __future__ import annotations

import sys
from pathlib import Path

# conformance_cases.py is no test, so pytest does not make it known.
sys.path.insert(0, str(Path(__file__).parent))
