"""How many examples are tried: few and always the same, or as many as one has time for.

python -m pytest tests/properties --hypothesis-profile=long --timeout 0
"""
from hypothesis import HealthCheck, settings

# A first call builds filters and matrices, and machines take what they cannot use from a shared draw.
COMMON = dict(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

settings.register_profile('ci', max_examples=30, stateful_step_count=20, derandomize=True, **COMMON)
settings.register_profile('long', max_examples=1000, stateful_step_count=50, print_blob=True, **COMMON)
settings.load_profile('ci')                         # pytest loads the one that it is told of later
