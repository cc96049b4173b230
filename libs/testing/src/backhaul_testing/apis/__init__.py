"""Providers' APIs as servers on this machine: what a provider knows of messages, whatever its callbacks told.

``TwilioApi`` and ``SendGridApi`` answer over HTTP, each in a thread of its own, on a free port of the loopback
interface.
``TwilioScenario`` and ``SendGridScenario`` let things happen there: they make what the API tells and the callbacks
about it, of which a share is withheld, doubled or shuffled. All of it follows from a seed and a ``Clock``.

Answers have the shapes that the providers document; each module names the pages. Where a page says nothing, the
docstring says so, and the simulator does what asks most of a client.
"""
