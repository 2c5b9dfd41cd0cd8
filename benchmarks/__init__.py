"""What Routilux costs, beside a reference that is measured in the same run: ``python -m benchmarks``."""
