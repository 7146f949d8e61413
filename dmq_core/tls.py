"""The TLS context of a connection."""

from __future__ import annotations

import ssl

from dmq_core.endpoints import TlsSettings
from dmq_core.errors import InvalidInputError


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """The TLS context of those settings; `InvalidInputError` if a file cannot be read or used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInputError(
            f"the TLS files cannot be used: {error.strerror or type(error).__name__}",
            "Look at the paths of the CA, certificate and key files.",
        ) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
