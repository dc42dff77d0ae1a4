"""Settings of all tests."""

import signal

import hypothesis
import pytest

# What is slow on a busy machine is no defect: no test has a deadline, and generating is never too slow.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

pytest.register_assert_rewrite("agentforge_conformance")

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
