"""A fifth of all replies is spoiled, in a dozen ways, by seed: the run ends with what was asked for, or says why not.

`SYNALIGN_CHAOS_SEEDS` says with how many seeds (`make chaos`: 20).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest
from chaos.faults import KINDS, FaultScript
from support.chat_server import ChatServer

from synalign_agent.config import SessionConfig
from synalign_agent.errors import EndpointError
from synalign_agent.report.summary import read_ledger
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
N_SEEDS = int(os.environ.get("SYNALIGN_CHAOS_SEEDS", "2"))
N_SAMPLES = int(os.environ.get("SYNALIGN_CHAOS_SAMPLES", "60"))
"""300 take about 200 calls."""
pytestmark = pytest.mark.usefixtures("hash_encoder")


def test_faults_depend_on_the_seed_and_cover_every_kind() -> None:
    def faults(seed: int, share: float = 0.2) -> FaultScript:
        script = FaultScript(seed, share)
        for number in range(2000):
            script({"messages": [], "seed": number}, number)
        return script

    first = faults(1)
    assert first.injected == faults(1).injected != faults(2).injected
    assert first.injected.keys() == set(KINDS)
    assert 300 < first.injected.total() < 500
    assert faults(1, share=0.0).injected.total() == 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(N_SEEDS))
def test_the_run_ends_with_the_samples_or_a_clear_reason(make_config: MakeConfig, seed: int) -> None:
    script = FaultScript(seed, share=0.2)
    with ChatServer(script, latency_seconds=0.005) as server:
        config = make_config(
            llm__base_url=server.base_url,
            n_samples=N_SAMPLES,
            limits__max_rounds=20,
            llm__timeout_seconds=20.0,
            seed=seed,
        )
        with Session.create(config, thread_id="t") as session:
            for _ in range(5):  # an endpoint that fails for a while stops the run, which can be resumed
                try:
                    result = session.run()
                    break
                except EndpointError as error:
                    assert "resume" in str(error)
            else:
                pytest.fail("the endpoint was given up five times although four of five replies were good")
            calls, ledger = session.store.calls(), read_ledger(session.store)
    assert result["n_selected"] == N_SAMPLES or result["stop_reason"] in ("max_rounds", "no_new_samples")
    assert script.injected.total() > 0.08 * len(calls)
    states = Counter(call.state for call in calls)
    assert states["intended"] == 0
    assert ledger["calls"]["done"] == states["done"]
    assert ledger["calls"]["failed"] == states["failed"] == sum(ledger["calls"]["failed_by_class"].values())
    assert result["calls"]["repeated"] == 0
    # Every call ended: done, or failed after all its attempts, in which case its failure is a counted rejection.
    done = {call.key for call in calls if call.state == "done"}
    given_up = {call.key for call in calls if call.node == "generate"} - done
    assert sum(count for reason, count in result["rejections"].items() if reason.startswith("call_")) >= len(given_up)
    # A reply that is cut, refused or malformed is never data.
    texts = [sample.text for sample in session_samples(config)]
    assert len(texts) == len(set(texts)) == result["n_pool"]
    assert not any("word word word" in text or "Sure!" in text for text in texts)


def session_samples(config: SessionConfig) -> list[object]:
    with Session.view("t", runs_dir=config.runs_dir) as session:
        return list(session.store.samples())
