"""One module per revision; the newest is `agentforge.store.schema.HEAD`."""
