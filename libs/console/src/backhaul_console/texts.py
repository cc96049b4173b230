"""English, in one place to translate from: templates and modules mark each text with ``_``.

``make texts`` (``tools/console_texts.py``) collects the marked texts in ``locale/console.pot``; a translation is a
catalogue made from it. A test finds texts that are not marked.
"""

from __future__ import annotations

from gettext import NullTranslations

TRANSLATIONS = NullTranslations()

_ = TRANSLATIONS.gettext
counted = TRANSLATIONS.ngettext
