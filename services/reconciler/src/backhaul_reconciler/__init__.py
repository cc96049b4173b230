"""Asks providers' APIs for what their callbacks did not tell. Beside the callbacks, never instead of them."""
