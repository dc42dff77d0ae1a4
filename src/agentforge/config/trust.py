"""Which certificate authorities AgentForge's own HTTPS connections trust."""

import ssl

__all__ = ["tls_context"]


def tls_context() -> ssl.SSLContext:
    """Return a context that trusts the system's authorities (or `SSL_CERT_FILE`) and those of certifi.

    Clients of model providers use one or the other; a machine may have only one of them.
    """
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
