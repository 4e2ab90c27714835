"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A test may take long on a busy machine; how fast something is, benches judge.
settings.register_profile("headway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headway")
