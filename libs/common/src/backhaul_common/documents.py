"""What a stored document is to code that knows no database."""

from __future__ import annotations

from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]
"""A document by its field names, as a database gives and takes it."""
