"""One folder a provider; ``registry.load_adapters`` finds them."""
