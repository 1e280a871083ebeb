"""The fake keeps the contract that the real clients keep."""

import pytest

from tests.contracts.client import ClientContract
from tests.pipelines.gateway.fakes import FakeClient


class TestFakeClient(ClientContract):
    @pytest.fixture
    def client(self) -> FakeClient:
        return FakeClient()
