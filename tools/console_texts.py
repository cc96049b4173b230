"""Collects the texts of the console in ``locale/console.pot``, from which a translation is begun (``msginit``).

``--check`` fails where that is not what the console says. The file names no places, so that only texts change it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import write_po

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "libs" / "console" / "src" / "backhaul_console"
TEXTS = PACKAGE / "locale" / "console.pot"
_METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
_OPTIONS = {"templates/**.html": {"extensions": "jinja2.ext.i18n,jinja2.ext.loopcontrols", "silent": "false"}}
_MARKS = {"_": None, "gettext": None, "ngettext": (1, 2), "counted": (1, 2)}
_HEADER = "# Texts of Backhaul's console. Made by make texts; not edited."


def collected() -> bytes:
    """The catalogue of all that is marked."""
    catalogue = Catalog(project="backhaul-console", header_comment=_HEADER, fuzzy=False)
    found = extract_from_dir(PACKAGE, _METHODS, _OPTIONS, keywords=_MARKS)
    for _, _, text, comments, context in found:
        catalogue.add(text, auto_comments=comments, context=context)
    written = io.BytesIO()
    write_po(written, catalogue, width=0, no_location=True, sort_output=True, omit_header=True)
    return f"{_HEADER}\n".encode() + written.getvalue()


def main() -> int:
    """0 unless it is only to be checked, and differs."""
    texts = collected()
    if "--check" in sys.argv[1:]:
        if not TEXTS.is_file() or TEXTS.read_bytes() != texts:
            sys.stderr.write(f"{TEXTS.relative_to(ROOT)} is not what the console says: run make texts.\n")
            return 1
        sys.stdout.write("The console's texts are collected.\n")
        return 0
    TEXTS.parent.mkdir(exist_ok=True)
    TEXTS.write_bytes(texts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
