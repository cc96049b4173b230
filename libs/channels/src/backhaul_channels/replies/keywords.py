"""The words by which people opt out, opt in and ask for help, and how they are misspelt. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from backhaul_channels.event import ConsentAction

# Whatever the channel, and the language that it writes in. What no rule below requires, a channel may leave out.
# Most are Twilio's, https://help.twilio.com/articles/223134027; UNSUB: https://help.twilio.com/articles/223181928;
# REMOVE, TD and ARRET: https://docs.aws.amazon.com/sms-voice/latest/userguide/keywords-required.html; AIDE:
# https://docs.aws.amazon.com/end-user-messaging/latest/userguide/nx-rcs-launch-ca-french.html. The others are spellings
# of these.
KEYWORDS: Final[Mapping[ConsentAction, tuple[str, ...]]] = {
    ConsentAction.OPT_OUT: (
        *("STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "UNSUB", "CANCEL", "END", "QUIT"),
        *("OPTOUT", "OPT-OUT", "OPT OUT", "REVOKE", "REMOVE", "TD", "ARRET", "ARRÊT"),
    ),
    ConsentAction.OPT_IN: ("START", "YES", "UNSTOP"),
    ConsentAction.HELP: ("HELP", "INFO", "AIDE"),
}

_FCC = "the FCC's rule on revoking consent, 47 CFR 64.1200(a)(10)"
_CANADA = "the rules of Canada's carriers for short codes (CWTA)"

# What a channel must always understand, in each of its spellings, and which rule says so, as the end of a sentence.
REQUIRED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("QUIT", "END", "REVOKE", "OPT OUT", "OPT-OUT", "OPTOUT", "CANCEL", "UNSUBSCRIBE"), _FCC),
    "STOP": f"{_FCC}, and {_CANADA}",
    **dict.fromkeys(("ARRET", "ARRÊT", "HELP", "AIDE", "INFO"), _CANADA),
}

# Words that answer many questions: they opt in only who is opted out.
ANSWERS: Final = frozenset({"YES", "OUI", "SÍ", "SÌ", "SIM", "JA"})


class LanguageKeywords(NamedTuple):
    """What a language adds. ``verified``: those that a provider documents; all others are our own, and no list of a
    provider or an authority has been found that has them."""

    keywords: Mapping[ConsentAction, tuple[str, ...]]
    verified: frozenset[str] = frozenset()


# By ISO 639-1. What is verified is from Sinch's lists for the Americas.
LANGUAGES: Final[Mapping[str, LanguageKeywords]] = {
    "de": LanguageKeywords(
        {
            ConsentAction.OPT_OUT: ("STOPP", "ABMELDEN", "ABBESTELLEN"),
            ConsentAction.OPT_IN: ("ANMELDEN", "JA"),
            ConsentAction.HELP: ("HILFE",),
        }
    ),
    "es": LanguageKeywords(
        {
            ConsentAction.OPT_OUT: ("DETENER", "SALIR", "BAJA", "ALTO", "PARAR", "CANCELAR", "NO MÁS"),
            ConsentAction.OPT_IN: ("VOLVER", "RECIBIR", "ALTA", "SÍ"),
            ConsentAction.HELP: ("AYUDA",),
        },
        frozenset({"DETENER", "SALIR", "VOLVER", "RECIBIR"}),
    ),
    "fr": LanguageKeywords(
        {
            ConsentAction.OPT_OUT: (
                "DÉSABONNER",
                "DÉSINSCRIRE",
                "DÉSABONNEMENT",
                "DÉSINSCRIPTION",
                "ARRÊTER",
                "ARRÊTEZ",
            ),
            ConsentAction.OPT_IN: ("REPRENDRE", "OUI"),
            ConsentAction.HELP: ("AIDE",),
        },
        frozenset({"AIDE"}),
    ),
    "it": LanguageKeywords(
        {
            ConsentAction.OPT_OUT: ("CANCELLA", "ANNULLA", "DISISCRIVI", "FERMA"),
            ConsentAction.OPT_IN: ("RIPRENDI", "SÌ"),
            ConsentAction.HELP: ("AIUTO",),
        }
    ),
    "nl": LanguageKeywords(
        {
            ConsentAction.OPT_OUT: ("AFMELDEN", "UITSCHRIJVEN", "STOPPEN"),
            ConsentAction.OPT_IN: ("AANMELDEN", "JA"),
            ConsentAction.HELP: ("HULP",),
        }
    ),
    "pt": LanguageKeywords(
        {
            ConsentAction.OPT_OUT: ("PARAR", "CANCELAR", "SAIR", "PARE"),
            ConsentAction.OPT_IN: ("VOLTAR", "RECEBER", "SIM"),
            ConsentAction.HELP: ("AJUDA",),
        },
        frozenset({"PARAR", "CANCELAR", "VOLTAR", "RECEBER"}),
    ),
}

# How people misspell words that are too short for "one letter off" to be safe: STOP is one letter from SHOP, STEP and
# TOP. None of these is an English word that means something else. A letter typed three times or more needs no entry.
MISSPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "STOP": (
        *("STPO", "SOTP", "TSOP", "SOPT", "STOPP", "SSTOP", "STTOP", "SYOP", "SROP", "DTOP", "STOO", "STPP", "ST0P"),
        *("5TOP", "STOPO"),
    ),
    "STOPALL": ("STOPPALL", "STOPAL"),
    "UNSUBSCRIBE": ("UNSCRIBE", "UNSUSCRIB", "UNSUBSCRIB", "UNSUBCRIB", "DESUBSCRIBE", "DISUBSCRIBE", "UN SUBSCRIBE"),
    "UNSUB": ("UNSUBB", "UNSBU", "UNSUBS", "UN SUB"),
    "CANCEL": ("CANCLE", "CANCELL", "CANSEL", "CANCAL", "CENCEL", "CACNEL", "CNACEL", "CANEL", "KANCEL"),
    "END": ("ENDD", "EDND"),
    "QUIT": ("QIUT", "QUTI", "QUUIT"),
    "OPT OUT": ("OPT OUTT", "OPT OIT", "OPT UOT", "OTPOUT", "OPTOU", "OPTOUTT", "OPOUT", "OPTED OUT", "OPTING OUT"),
    "REVOKE": ("REVOK", "REVOKEE", "REVOEK", "RECOKE"),
    "REMOVE": ("REMOV", "REMVOE", "REMOOVE", "RMOVE", "REMOE", "REMOVEE"),
    "ARRET": ("ARET", "ARRETT", "ARRÊTE", "ARRÊTEZ", "ARRÊTER", "ARRÈT", "ARRÉT"),
    "START": ("SATRT", "STARTT", "STRT", "STAERT"),
    "UNSTOP": ("UNSTOPP", "UNSTP", "USTOP", "UN STOP"),
    "YES": ("YESS", "YSE"),
    "HELP": ("HLEP", "HEPL", "HELPP", "HEKP"),
    "INFO": ("IFNO", "INOF", "INFOO"),
}
