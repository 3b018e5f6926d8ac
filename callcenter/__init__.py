"""The wiring: settings, addresses, servers. Nobody imports it."""

__version__ = "0.1.0"
