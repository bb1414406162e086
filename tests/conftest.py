"""What all tests share: how many examples a property is tried on. The one rule: CI is the same on every run."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# readers of model folders must find everything on this machine
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# a shell's background job is deaf to Ctrl-C, and so would be every process that a test starts and interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=20, deadline=None, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=True, print_blob=True, suppress_health_check=_SLOW
)
settings.register_profile("full", max_examples=2000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("dev")


@pytest.fixture(scope="session")
def thorough(pytestconfig) -> bool:
    """Whether this is the long run of ``make test-full``."""
    return pytestconfig.getoption("hypothesis_profile", None) == "full"
