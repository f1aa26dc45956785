"""The loop eval: its arms, its scores, and whole sessions against a scripted endpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("evals.loop", reason="the evals are not part of the source distribution")
pytest.importorskip("matplotlib", reason="the picture needs the extra `eval`")

from conftest import HashEncoder
from support.chat_server import ChatServer

from evals import loop
from evals.loop import Settings, calls_to
from evals.loop_arms import Arm, Effort, Point, n_rounds
from evals.loop_view import mean_curve
from evals.results import EvalResult, matching, start
from synalign_agent.errors import InputError
from synalign_agent.toolkit.progress import silent

ARMS = ("random", "random+alignment", "ivr_gap+attributes+alignment")


@pytest.mark.parametrize("name", ["random", "gp+alignment", "gp_gap+attributes", "ivr_gap+attributes+alignment"])
def test_an_arm_is_read_back_from_its_name(name: str) -> None:
    assert str(Arm.parse(name)) == name


def test_an_arm_with_an_unknown_part_is_refused() -> None:
    with pytest.raises(InputError, match="attribute"):
        Arm.parse("gp+attribute")


def test_attributes_cost_rounds() -> None:
    effort = Effort(61, 10, 100, clusters_per_label=1, calls_per_cluster=2, samples_per_call=3)
    assert n_rounds(Arm("random", False, False), effort, 2, proposes=True) == 15
    assert n_rounds(Arm("random", True, False), effort, 2, proposes=True) == 10
    assert n_rounds(Arm("random", True, False), replace(effort, max_calls=60), 2, proposes=True) == 9
    assert n_rounds(Arm("random", True, False), replace(effort, max_calls=60), 2, proposes=False) == 10


def test_calls_count_until_the_level_is_reached_for_the_first_time() -> None:
    points = [Point(4, None, 0, 0), Point(8, 0.3, 9, 5), Point(12, 0.1, 20, 5), Point(16, 0.2, 30, 5)]
    assert calls_to(points, 0.2) == 12 and calls_to(points, 0.3) == 8
    assert calls_to(points, 0.05) is None and calls_to([], 1.0) is None


def measured(*curves: dict[str, list[Point]]) -> EvalResult:
    settings = Settings(datasets=("tiny",), arms=("random", "gp_gap+attributes+alignment"), n_seeds=len(curves))
    result = start("loop", settings, {"tiny": "0"}, range(len(curves)))
    result.details = {"curves": [], "floor": {"tiny": 0.01}}
    for seed, curve in enumerate(curves):
        loop._score(result, "tiny", seed, curve)
    return result


def test_the_target_compares_calls_within_a_seed_and_never_reached_is_not_met() -> None:
    slow = [Point(10, 0.5, 1, 1), Point(20, 0.2, 1, 1), Point(30, 0.3, 1, 1)]
    fast = [Point(8, 0.15, 1, 1), Point(16, 0.1, 1, 1)]
    never = [Point(8, 0.6, 1, 1)]
    arm = "gp_gap+attributes+alignment"
    wanted, met, figure = loop.targets(measured({"random": slow, arm: fast}))[0]
    assert arm in wanted and met and figure.startswith("0.40")
    _, met, figure = loop.targets(measured({"random": slow, arm: fast}, {"random": slow, arm: never}))[0]
    assert met is False and "never in 1 of 2 seeds" in figure
    result = measured({"random": slow, arm: never})
    assert loop.targets(result)[0][1:] == (False, "never in 1 of 1 seeds")
    missing = matching(result.measurements, "calls_to_baseline", {"arm": arm})
    assert [entry.value for entry in missing] == [None] and missing[0].reason
    assert loop.targets(result)[1][1:] == (None, "not measured")


def test_a_mean_curve_averages_like_rounds() -> None:
    early = [Point(10, None, 0, 0), Point(20, 0.2, 1, 1), Point(30, 0.1, 1, 1)]
    late = [Point(12, 0.6, 1, 1), Point(22, 0.4, 1, 1)]
    assert mean_curve(measured({"random": early}, {"random": late}), "tiny", "random") == ([21.0], [pytest.approx(0.3)])
    assert mean_curve(measured({"random": early}), "tiny", "gp") == ([], [])


@pytest.mark.usefixtures("open_gates")
def test_whole_sessions_share_replies_count_them_and_go_on_where_they_were(
    data_dir: Path, tmp_path: Path, chat_server: ChatServer, hash_encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evals.loop.default_encoder", lambda: hash_encoder)
    monkeypatch.setattr("evals.embeddings.default_encoder", lambda: hash_encoder)
    monkeypatch.setattr("evals.loop.cache_folder", lambda: tmp_path / "cache")
    settings = Settings(
        datasets=("tiny",), arms=ARMS, max_calls=16, n_samples=10, n_ref=60, clusters_per_label=1, calls_per_cluster=2, n_seeds=1,
        model="scripted", base_url=chat_server.base_url, concurrency=4,
    )  # fmt: skip
    result = loop.run(settings, silent, data_dir)
    curves: dict[str, Any] = {entry["arm"]: entry["points"] for entry in result.details["curves"]}
    assert list(curves) == list(ARMS)
    # The same calls with and without alignment: asked once, counted for both.
    assert [point[0] for point in curves["random"]] == [point[0] for point in curves["random+alignment"]]
    n_sent = len(chat_server.requests)
    assert n_sent < sum(points[-1][0] for points in curves.values())
    assert all(points[-1][0] <= 16 and points[-1][1] is not None for points in curves.values())
    again = loop.run(replace(settings, arms=ARMS[:2]), silent, data_dir)
    assert len(chat_server.requests) == n_sent
    assert again.details["curves"] == result.details["curves"][:2]
    assert "base_url" in result.settings and result.settings["base_url"] is None
    assert [table.row_count for table in loop.tables(result)] == [3]
    loop.figure(result).savefig(tmp_path / "loop.png")
