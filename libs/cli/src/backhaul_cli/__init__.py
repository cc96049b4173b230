"""The command line of Backhaul: what its HTTP API tells and does, for people and for scripts.

Whatever is not needed for the help is imported where it is used: ``--help`` and completion wait for nothing.
"""
