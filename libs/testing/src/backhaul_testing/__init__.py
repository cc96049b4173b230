"""What tests of several packages share: providers that sign and send, connections, proxies, waiting. Never shipped."""
