"""A world with one zone, and one with two."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.operator.world import World, running_world
from tests.support.kube_api import KubeApi
from tests.support.postgres import NewDatabase


@pytest.fixture
async def world(kube_api: KubeApi, new_database: NewDatabase) -> AsyncIterator[World]:
    """Zones a and b."""
    targets = {zone: new_database("gatherer", zone=zone) for zone in "ab"}
    async with running_world(kube_api, targets) as made:
        yield made
