"""Settings of all tests."""

import signal

import pytest

pytest.register_assert_rewrite("agentforge_conformance")

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
