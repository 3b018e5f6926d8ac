"""One TLS context for all calls."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def tls_context() -> ssl.SSLContext:
    """The context for outgoing connections: certificates checked, `SSL_CERT_FILE` respected.

    Shared because reading the certificate store takes tens of milliseconds, which would hold up
    the audio of every other call each time a call is answered. It holds nothing of any call.
    """
    return httpx.create_ssl_context()
