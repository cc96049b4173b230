"""What the console needs of the gateway: a way to the API, and a place for its sessions."""
