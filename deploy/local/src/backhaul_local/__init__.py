"""The local stack: real servers and every service as processes, for `make up`, the demo, the tests and benchmarks.

`stack` runs a whole stack, `mongod`, `nats_server` and `object_store` run one server each, `pytest_plugin` brings them
to tests. All modules of this package may be imported by the demo, tests and benchmarks; services never import it.
"""
