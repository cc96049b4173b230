"""``python -m backhaul_testing.apis``: Twilio's and SendGrid's API on this machine, to try the reconciler with.

Both know messages of the last three days, and a new one every minute, and post no callback of any: all that Backhaul
comes to know of them it has asked for.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from backhaul_testing.apis.sendgrid import SendGridApi
from backhaul_testing.apis.sendgrid_scenario import SendGridScenario
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.apis.twilio_scenario import TwilioScenario

_SPAN: Final = timedelta(days=3)
_EVERY_S: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve both until Ctrl-C or a SIGTERM. What is printed can be pasted, and is the same each time."""
    chosen = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    twilio, sendgrid = TwilioApi(), SendGridApi()
    account, user = twilio.account(), sendgrid.user("acme")
    texts, mails = TwilioScenario(account), SendGridScenario(user)
    begin = twilio.clock.now() - _SPAN
    texts.texts(chosen.messages, begin=begin, within_s=_SPAN.total_seconds())
    mails.mails(chosen.messages, begin=begin, within_s=_SPAN.total_seconds())
    try:
        twilio.listen_on(chosen.twilio_port)
        sendgrid.listen_on(chosen.sendgrid_port)
        with twilio, sendgrid:
            access = {"account_sid": account.sid, "auth_token": account.auth_token}
            _tell("For the reconciler", "export BACKHAUL_RECONCILER_ORIGINS=", {**twilio.origins, **sendgrid.origins})
            _tell("pull_credentials of a channel of Twilio", "TWILIO=", access)
            _tell("pull_credentials of a channel of SendGrid", "SENDGRID=", {"api_key": user.key()})
            while True:
                time.sleep(_EVERY_S)
                texts.texts(1)
                mails.mails(1)
    except OSError as exc:
        raise SystemExit(f"A port cannot be listened on ({exc}): choose others, see --help.") from exc
    except KeyboardInterrupt:
        pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backhaul_testing.apis",
        description="Twilio's and SendGrid's API on this machine, until Ctrl-C. Each knows messages of the last three "
        "days, and a new one every minute. No callback is posted of any.",
    )
    parser.add_argument("--twilio-port", type=int, default=9101, metavar="PORT", help="default: 9101; 0: a free one")
    parser.add_argument("--sendgrid-port", type=int, default=9102, metavar="PORT", help="default: 9102; 0: a free one")
    parser.add_argument("--messages", type=int, default=100, help="how many each knows at first; default: 100")
    return parser


def _tell(what: str, name: str, content: dict[str, Any]) -> None:
    sys.stdout.write(f"# {what}:\n{name}'{json.dumps(content)}'\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
