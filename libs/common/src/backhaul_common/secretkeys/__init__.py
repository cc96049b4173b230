"""Having what a service keeps encrypted under the first key of the ring, so that the others may leave it.

docs/decisions/0044 names all that is kept so, and says why this is enough.
"""

from backhaul_common.secretkeys.renewal import Kept, SecretRenewal
from backhaul_common.secretkeys.servicer import SERVICE, SecretKeysServicer, registrations

__all__ = ["SERVICE", "Kept", "SecretKeysServicer", "SecretRenewal", "registrations"]
