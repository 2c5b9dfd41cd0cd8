import pytest

pytest.register_assert_rewrite("routilux.testing.store_contract")
