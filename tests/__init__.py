"""
The tests, and what benches and the demo share with them.
"""

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the demo needs no tools of tests
    pass
else:
    # A busy machine makes generating slow, the first time most of all; that says nothing about the code.
    settings.register_profile("yurt", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("yurt")
