from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.session_stores import NAMES, maker

from synalign_agent.stores.base import SessionStore


@pytest.fixture(params=NAMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    made = maker(request.param, request)(tmp_path)
    yield made
    made.close()
