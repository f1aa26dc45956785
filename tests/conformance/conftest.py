from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.postgres import REASON, must_run, programs, running_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server that is started for these tests and ended after them."""
    if programs() is None:
        if must_run():
            pytest.fail(REASON)
        pytest.skip(REASON)
    with running_server() as url:
        yield url
