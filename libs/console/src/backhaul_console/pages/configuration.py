"""Configuration as a document: taking it away, and applying one after a look at what it would change. And the keys of
the installation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from starlette.datastructures import UploadFile
from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.streaming import download
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

MAX_DOCUMENT_BYTES = 4 << 20
"""As much as the API takes. What is pasted may have a fourth of it, as fields beside files have in Starlette."""
_MAX_FORM_BYTES = 2 * MAX_DOCUMENT_BYTES
"""Of the form that asks, and of the one that carries the document sealed."""


async def _form(visit: Visit) -> Response:
    return visit.page("configuration/form.html", form=Filled({}))


async def _export(visit: Visit) -> Response:
    return await download("backhaul-configuration.json", _document(visit, visit.query.get("tenant", "").strip()))


async def _document(visit: Visit, tenant: str) -> AsyncGenerator[bytes, None]:
    """The document tenant by tenant, however many there are."""
    async with visit.lasting_admin() as admin:
        page = await admin.export(tenant=tenant)
        head = {name: value for name, value in page.items() if name not in ("tenants", "next_cursor")}
        # The head has at least the version of the document.
        yield msgspec.json.encode(head)[:-1] + b', "tenants": [\n'
        before = b""
        while True:
            for one in page["tenants"]:
                yield before + msgspec.json.format(msgspec.json.encode(one), indent=2)
                before = b",\n"
            if not (cursor := page.get("next_cursor")):
                break
            page = await admin.export(tenant=tenant, cursor=cursor)
    yield b"\n]}\n"


async def _look(visit: Visit) -> Response:
    """What a document would change. The form that follows carries exactly what was looked at."""
    sent = await visit.request.form()
    texts = {}
    for name in ("document", "secrets"):
        file, typed = sent.get(f"{name}_file"), sent.get(name)
        content = await file.read() if isinstance(file, UploadFile) and file.filename else b""
        texts[name] = content.decode(errors="replace") if content else str(typed or "").strip()
    # A secret is shown on no page, that of its own form neither.
    form = Filled.of(document=texts["document"])
    try:
        document, secrets = _json("document", texts["document"]), _json("secrets", texts["secrets"] or "{}")
        changes = await visit.admin.apply(document, secrets=secrets or None, dry_run=True)
    except REFUSED as exc:
        form = form.refused(exc)
        return visit.page("configuration/form.html", status=form.status, form=form)
    sealed = visit.session.seal(msgspec.json.encode([document, secrets]))
    return visit.page("configuration/changes.html", changes=changes, sealed=sealed)


def _json(name: str, text: str) -> Mapping[str, Any]:
    fix = _("Paste a JSON document like one that was exported.")
    try:
        return msgspec.json.decode(text.encode(errors="replace"), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise wrong(name, _("This is no JSON document."), fix) from None


async def _apply(visit: Visit) -> Response:
    looked_at = visit.session.unseal((await visit.form()).get("sealed", ""))
    form = Filled({})
    try:
        if looked_at is None:
            raise wrong("", _("This is not what was looked at."), _("Send the document again."))
        document, secrets = msgspec.json.decode(looked_at)
        changes = await visit.admin.apply(document, secrets=secrets or None)
    except REFUSED as exc:
        form = form.refused(exc)
        return visit.page("configuration/form.html", status=form.status, form=form)
    return visit.page("configuration/changes.html", changes=changes, sealed="")


async def _secret_keys(visit: Visit) -> Response:
    found = await visit.admin.secret_keys(cursor=visit.query.get("cursor", ""))
    return visit.page("configuration/secret_keys.html", found=found, rotated=False)


async def _rotate_secret_keys(visit: Visit) -> Response:
    form = await visit.form()
    if form.get("confirmed") != "yes":
        return asks(
            visit,
            _("Encrypt secrets anew?"),
            _("Each secret of each tenant that is not under the first key of the ring is encrypted with it."),
            _("Nothing else changes, and it may be repeated."),
            fields=[("confirmed", "yes"), ("cursor", form.get("cursor", ""))],
            action="/configuration/secret-keys",
            label=_("Encrypt anew"),
            kind="primary",
            back="/configuration/secret-keys",
        )
    found = await visit.admin.rotate_secret_keys(cursor=form.get("cursor", ""))
    return visit.page("configuration/secret_keys.html", found=found, rotated=True)


async def _audit_keys(visit: Visit) -> Response:
    return visit.page("configuration/audit_keys.html", keys=await visit.admin.audit_keys())


async def _rotate_audit_key(visit: Visit) -> Response:
    if (await visit.form()).get("confirmed") != "yes":
        return asks(
            visit,
            _("Sign digests with a new key?"),
            _("A key is made, which signs the digests of every tenant from then on."),
            _("The present one stays published, so that what it signed can be verified, and signs nothing more."),
            _("This cannot be taken back."),
            fields=[("confirmed", "yes")],
            action="/configuration/audit-keys",
            label=_("Make a new key"),
            kind="primary",
            back="/configuration/audit-keys",
        )
    await visit.admin.rotate_audit_key()
    return visit.to("/configuration/audit-keys", said="rotated")


ROUTES = (
    Page("GET", "/configuration", _form, side="admin"),
    Page("GET", "/configuration/export", _export, side="admin"),
    Page("POST", "/configuration/look", _look, side="admin", max_body=_MAX_FORM_BYTES),
    Page("POST", "/configuration/apply", _apply, side="admin", max_body=_MAX_FORM_BYTES),
    Page("GET", "/configuration/secret-keys", _secret_keys, side="admin"),
    Page("POST", "/configuration/secret-keys", _rotate_secret_keys, side="admin"),
    Page("GET", "/configuration/audit-keys", _audit_keys, side="admin"),
    Page("POST", "/configuration/audit-keys", _rotate_audit_key, side="admin"),
)
