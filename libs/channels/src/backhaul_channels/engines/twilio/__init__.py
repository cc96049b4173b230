"""How Twilio signs and writes requests, whichever of its products posts them."""
