"""The HTTP API of a host, the host's process, and the clients of both. No logic of runs lives here."""
