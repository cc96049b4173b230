"""The console of Backhaul: what its HTTP API tells and does, in a browser.

It is a reader of the API like any other client: whatever a page shows or does, it asks ``backhaul_client`` for, with
the credential that its visitor has signed in with. It has no data of its own but sessions.

``app.py`` puts it together; ``visits.py`` is what a page is given; each module of ``pages/`` is one subject, with its
routes, and has its templates in ``templates/``. A new page is a function of a ``Visit`` and a row in its module's
ROUTES.
"""

from backhaul_console.app import Console
from backhaul_console.openid import OpenId
from backhaul_console.sessions import Person, SessionStore, StoreAwayError, Stored

__all__ = ["Console", "OpenId", "Person", "SessionStore", "StoreAwayError", "Stored"]
