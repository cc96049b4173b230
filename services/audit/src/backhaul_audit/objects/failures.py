"""What goes wrong with object storage, in words: what it is, and what to do about it.

Tenants are shown these sentences, so no host is named, and nothing of a library's own text is passed on: it may name
addresses, keys or tokens, and helps nobody who has not read the library. The log has the endpoint and the server's
code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from backhaul_common.errors import BackhaulError, Code
from minio.error import MinioException, S3Error, ServerError
from urllib3 import exceptions as http

from backhaul_audit.objects.http import NotS3
from backhaul_audit.objects.place import Place

RETRY_AFTER_S = 5.0

FAILURES = (BackhaulError, MinioException, NotS3, http.HTTPError, OSError, ValueError, ParseError)
"""What the client may raise without being wrong itself."""


class _Sentence(NamedTuple):
    """``message`` and ``fix`` may name ``{bucket}`` and ``{more}``. What is ``away`` may come back."""

    message: str
    fix: str
    away: bool = False


_AGAIN = "It is tried again."
_NO_BUCKET = _Sentence("The bucket {bucket} does not exist.", "Create it, or correct its name.")
_BAD_NAME = _Sentence("{bucket} is no name that a bucket can have.", "Correct it.")
_UNKNOWN_KEY = _Sentence("Object storage does not know the access key.", "Correct it: it may have been replaced.")
_WRONG_KEY = _Sentence("The secret key does not belong to the access key.", "Correct it.")
_OVER = _Sentence("The credentials for object storage have ended.", "Renew them.")
_REFUSED = _Sentence(
    "The credentials may not do this in the bucket {bucket}.",
    "Correct them, or let them list, read, write and delete objects and their versions there.",
)
_CLOCKS = _Sentence("The clocks of this machine and of object storage differ too much.", "Set both by a time server.")
_FULL = _Sentence("There is no room in the bucket {bucket}.", "Give it more room, or a larger quota.")
_ELSEWHERE = _Sentence(
    "The bucket {bucket} lies in another region or at another endpoint{more}.",
    "Set the region and the endpoint of where it was created.",
)
_BUSY = _Sentence("Object storage is overloaded, or starting.", _AGAIN, away=True)
_UNABLE = _Sentence("This object storage does not know what was asked of it.", "Use another, or a newer version.")
_OTHER = _Sentence("Object storage refuses this ({more}).", "Its own log says why.")

_TOO_LARGE = _Sentence("A proxy before object storage refuses objects of this size.", "Raise its limit.")
_SHUT = _Sentence("Something before object storage refuses the request.", "Look at the proxy there.")
_PROXY_AWAY = _Sentence("What stands before object storage says that it is away.", _AGAIN, away=True)
_NOT_S3 = _Sentence("What answers at the endpoint is not S3.", "Correct the endpoint, and whether it is http or https.")

_PLAIN = _Sentence("The endpoint does not speak TLS.", "Begin it with http://, or have it speak TLS.")
_ANOTHER_HOST = _Sentence(
    "The certificate at the endpoint is another host's.", "Correct the endpoint, or the certificate."
)
_EXPIRED = _Sentence("The certificate at the endpoint has expired.", "Renew it.")
_UNTRUSTED = _Sentence(
    "Nobody whom this machine trusts vouches for the certificate at the endpoint.",
    "Let the service trust its authority: SSL_CERT_FILE names a file of certificates.",
)
_NO_TLS = _Sentence("No secure connection to object storage came about.", _AGAIN, away=True)

_NO_NAME = _Sentence("The name of object storage's host is not known.", "Correct the endpoint, or DNS.", away=True)
_NOBODY = _Sentence("Nothing answers where object storage should be.", "Look whether it runs.", away=True)
_SLOW = _Sentence("Object storage is too slow, or hangs.", "Look whether it is overloaded.", away=True)
_BROKE = _Sentence("The connection to object storage broke.", _AGAIN, away=True)
_NO_PLACE = _Sentence("The endpoint, the region or the bucket's name is not one that S3 can have.", "Correct it.")

_CODES: Mapping[str, _Sentence] = {
    **dict.fromkeys(("NoSuchBucket",), _NO_BUCKET),
    **dict.fromkeys(("InvalidBucketName",), _BAD_NAME),
    **dict.fromkeys(("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"), _UNKNOWN_KEY),
    **dict.fromkeys(("SignatureDoesNotMatch",), _WRONG_KEY),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"), _OVER),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "NotSignedUp"), _REFUSED),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestExpired", "RequestNotValidYet"), _CLOCKS),
    **dict.fromkeys(("QuotaExceeded", "QuotaExceededException", "XMinioAdminBucketQuotaExceeded"), _FULL),
    **dict.fromkeys(("XMinioStorageFull", "StorageFull", "InsufficientCapacity", "InsufficientStorage"), _FULL),
    **dict.fromkeys(("PermanentRedirect", "TemporaryRedirect", "Redirect", "InvalidRegion"), _ELSEWHERE),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _ELSEWHERE),
    **dict.fromkeys(("SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "RequestLimitExceeded"), _BUSY),
    **dict.fromkeys(("ServiceUnavailable", "InternalError", "RequestTimeout", "Busy", "OperationAborted"), _BUSY),
    **dict.fromkeys(("XMinioServerNotInitialized", "ServerNotInitialized", "ConditionalRequestConflict"), _BUSY),
    **dict.fromkeys(("NotImplemented", "MethodNotAllowed", "XNotImplemented"), _UNABLE),
}
_STATUSES: Mapping[int, _Sentence] = {
    **dict.fromkeys((301, 307, 308), _ELSEWHERE),
    **dict.fromkeys((401, 403), _REFUSED),
    **dict.fromkeys((405, 501), _UNABLE),
    429: _BUSY,
    507: _FULL,
}
_FOREIGN: Mapping[int, _Sentence] = {**dict.fromkeys((401, 403, 407), _SHUT), 413: _TOO_LARGE, 429: _PROXY_AWAY}
# The reason why TLS failed is in the exception's text alone.
_TLS = (
    (("WRONG_VERSION_NUMBER", "record layer", "HTTP_REQUEST"), _PLAIN),
    (("mismatch", "doesn't match", "not valid for"), _ANOTHER_HOST),
    (("has expired",), _EXPIRED),
    (("CERTIFICATE_VERIFY_FAILED",), _UNTRUSTED),
)
_KINDS: tuple[tuple[type[Exception], _Sentence], ...] = (
    (http.NameResolutionError, _NO_NAME),
    (http.ReadTimeoutError, _SLOW),
    (http.ConnectTimeoutError, _NOBODY),
    (http.NewConnectionError, _NOBODY),
    (http.HTTPError, _BROKE),
    (OSError, _BROKE),
    (MinioException, _NOT_S3),
    (ParseError, _NOT_S3),
    # The client stumbles over some answers.
    (ValueError, _NOT_S3),
)

_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_EXPECTED = re.compile(r"expecting '([a-z0-9-]{1,32})'")


def failure(exc: Exception, place: Place) -> BackhaulError:
    """The typed error of one of ``FAILURES``: UNAVAILABLE where the same may succeed later, FAILED_PRECONDITION where
    people must mend something. A ``BackhaulError`` is its own."""
    if isinstance(exc, BackhaulError):
        return exc
    return _worded(*_sentence(exc), place)


def unfit(place: Place) -> BackhaulError:
    """The error of a place that the client refuses by its form."""
    return _worded(_NO_PLACE, "", place)


def in_words(error: BackhaulError) -> str:
    """What is wrong, and what to do about it."""
    return " ".join(filter(None, (error.message, error.fix)))


def code_of(exc: Exception) -> str:
    """What the log says of it: the server's word, if it is one, or the kind of failure."""
    if isinstance(exc, S3Error):
        return exc.code if exc.code and _WORD.fullmatch(exc.code) else "S3Error"
    return f"http_{exc.status}" if isinstance(exc, NotS3) else type(exc).__name__


def _worded(sentence: _Sentence, more: str, place: Place) -> BackhaulError:
    words = {"bucket": repr(place.bucket), "more": more}
    return BackhaulError(
        Code.UNAVAILABLE if sentence.away else Code.FAILED_PRECONDITION,
        sentence.message.format_map(words),
        fix=sentence.fix,
        retry_after_s=RETRY_AFTER_S if sentence.away else None,
    )


def _sentence(exc: Exception) -> tuple[_Sentence, str]:
    if isinstance(exc, S3Error):
        return _refusal(exc)
    if isinstance(exc, NotS3 | ServerError):
        return _foreign(exc.status if isinstance(exc, NotS3) else exc.status_code), ""
    if isinstance(exc, http.SSLError):
        said = str(exc)
        return next((sentence for marks, sentence in _TLS if any(mark in said for mark in marks)), _NO_TLS), ""
    return next(sentence for kind, sentence in _KINDS if isinstance(exc, kind)), ""


def _refusal(exc: S3Error) -> tuple[_Sentence, str]:
    code, status = exc.code or "", int(exc.response.status)
    sentence = _CODES.get(code) or _STATUSES.get(status) or (_BUSY if status >= 500 else _OTHER)
    if sentence is _ELSEWHERE:
        region = exc.response.headers.get("x-amz-bucket-region", "")
        if _REGION.fullmatch(region) is None:
            found = _EXPECTED.search(exc.message or "")
            region = found.group(1) if found else ""
        return sentence, f": {region}" if region else ""
    return sentence, code if _WORD.fullmatch(code) else f"HTTP {status}"


def _foreign(status: int) -> _Sentence:
    return _FOREIGN.get(status) or (_PROXY_AWAY if status >= 500 and status != 501 else _NOT_S3)
