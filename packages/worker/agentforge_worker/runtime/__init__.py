"""The worker process: one asyncio loop for its life, runs of one adapter (or calls of python tools) on it."""
