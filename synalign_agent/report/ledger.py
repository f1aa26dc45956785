"""What a session cost and what that bought: the journal, the pool and the rounds as numbers.

Everything here is arithmetic on sums that the store made. What was not measured is None, never 0: dollars where no prices are
configured, tokens where the endpoint reports none, a price per gain where nothing was gained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from synalign_agent.records import CallGroup

_IN_FLIGHT = "intended"


def ledger(
    groups: Iterable[CallGroup],
    rounds: Sequence[Mapping[str, Any]],
    *,
    n_accepted: int,
    repeated: int,
    priced: bool,
    inherited_rounds: int = 0,
) -> dict[str, Any]:
    """Return the ledger of a session as plain JSON values.

    Args:
        groups: sums over the journal, as `SessionStore.call_groups` returns them.
        rounds: the numbers of the finished rounds, oldest first.
        n_accepted: size of the pool, edited texts included.
        repeated: finished calls that were sent again.
        priced: whether `llm.prices` are set; without them every amount in USD is None.
        inherited_rounds: rounds that a fork took over from its parent.

    Returns:
        `calls`: `done` (finished calls, `cached` and `inherited` ones included), `repeated`, `in_flight` (being answered
            now), `in_flight_lost` (the process died before the reply was kept), `failed` (attempts that came to nothing),
            `failed_by_class` {error class: attempts}, `cached` (answered by the response cache, nothing was sent),
            `inherited` (paid for by the session that this one was forked from).
        `tokens`: `prompt`, `completion`, and `unreported_calls`, the finished calls whose use the endpoint did not tell;
            `inherited` counts prompt and completion of inherited calls.
        `cost_usd`, `inherited_cost_usd`, `seconds` (time waited for replies, summed over calls).
        `by_prompt`, `by_node`: name -> `done`, `failed`, `in_flight_lost`, `cached`, `tokens` {`prompt`, `completion`},
            `cost_usd`, `seconds`.
        `per_accepted_sample`: `calls` (done, without cached ones), `tokens`, `cost_usd`.
        `by_round`: for each finished round `round`, `calls`, `tokens`, `cost_usd` of its own calls; `accepted`; `mmd2` of
            the aligned data; `mmd2_gained` since the round before (negative if it rose; None for the first round, which has
            nothing before it); `tokens_per_mmd2` and `cost_usd_per_mmd2`, what a fall of MMD² by 1 cost at this round's
            rate, None unless it fell; and `cumulative`, the same four numbers from the first measured round on.
    """
    groups = list(groups)
    done = [group for group in groups if group.state == "done"]
    sent = [group for group in done if not group.cached]
    inherited = [group for group in done if group.inherited or group.round <= inherited_rounds]
    failed = [group for group in groups if group.state == "failed"]
    tokens, cost_usd = _tokens(sent), _usd(groups, priced)
    return {
        "calls": {
            "done": _count(done),
            "repeated": repeated,
            "in_flight": _count(group for group in groups if group.state == _IN_FLIGHT),
            "in_flight_lost": _count(group for group in groups if group.state == "lost"),
            "failed": _count(failed),
            "failed_by_class": _by_class(failed),
            "cached": _count(group for group in done if group.cached),
            "inherited": _count(inherited),
        },
        "tokens": {
            **tokens,
            "unreported_calls": sum(group.n_without_usage for group in sent),
            "inherited": _total(_tokens(inherited)),
        },
        "cost_usd": cost_usd,
        "inherited_cost_usd": _usd(inherited, priced),
        "seconds": sum(group.seconds for group in groups),
        "by_prompt": _split(groups, lambda group: group.prompt, priced),
        "by_node": _split(groups, lambda group: group.node, priced),
        "per_accepted_sample": {
            "calls": _ratio(_count(sent), n_accepted),
            "tokens": _ratio(_total(tokens), n_accepted),
            "cost_usd": _ratio(cost_usd, n_accepted),
        },
        "by_round": _by_round(groups, rounds, priced),
    }


def is_priced(config: Mapping[str, Any]) -> bool:
    """Tell whether a session's configuration, as plain values, has a price to count costs by."""
    prices = (config.get("llm") or {}).get("prices") or {}
    return any(price is not None for price in prices.values())


def _by_round(groups: Sequence[CallGroup], rounds: Sequence[Mapping[str, Any]], priced: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    n_pool = 0
    first: float | None = None
    before: float | None = None
    since_first: list[CallGroup] = []
    for entry in rounds:
        own = [group for group in groups if group.round == entry["round"]]
        mmd2 = entry["mmd2"]["aligned"]
        if first is not None:  # the first measured round is where the count begins: what it cost bought no fall yet
            since_first += own
        rows.append(
            {
                "round": entry["round"],
                "calls": _count(group for group in own if group.state == "done"),
                **_spent(own, priced),
                "accepted": entry["n_pool"] - n_pool,
                "mmd2": mmd2,
                **_price_of_gain(own, _difference(before, mmd2), priced),
                "cumulative": {
                    **_spent(since_first, priced),
                    **_price_of_gain(since_first, _difference(first, mmd2), priced),
                },
            }
        )
        n_pool = entry["n_pool"]
        first = mmd2 if first is None else first
        before = before if mmd2 is None else mmd2
    return rows


def _price_of_gain(groups: Sequence[CallGroup], gained: float | None, priced: bool) -> dict[str, Any]:
    spent = _spent(groups, priced)
    fell = gained if gained is not None and gained > 0 else None
    return {
        "mmd2_gained": gained,
        "tokens_per_mmd2": _ratio(spent["tokens"], fell),
        "cost_usd_per_mmd2": _ratio(spent["cost_usd"], fell),
    }


def _spent(groups: Sequence[CallGroup], priced: bool) -> dict[str, Any]:
    sent = [group for group in groups if group.state == "done" and not group.cached]
    return {"tokens": _total(_tokens(sent)), "cost_usd": _usd(groups, priced)}


def _split(groups: Sequence[CallGroup], key: Callable[[CallGroup], str], priced: bool) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[CallGroup]] = {}
    for group in groups:
        parts.setdefault(key(group), []).append(group)
    return {
        name: {
            "done": _count(group for group in part if group.state == "done"),
            "failed": _count(group for group in part if group.state == "failed"),
            "in_flight_lost": _count(group for group in part if group.state == "lost"),
            "cached": _count(group for group in part if group.state == "done" and group.cached),
            "tokens": _tokens([group for group in part if group.state == "done" and not group.cached]),
            "cost_usd": _usd(part, priced),
            "seconds": sum(group.seconds for group in part),
        }
        for name, part in parts.items()
    }


def _by_class(failed: Sequence[CallGroup]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in failed:
        name = str(group.error_class)
        counts[name] = counts.get(name, 0) + group.n
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tokens(sent: Sequence[CallGroup]) -> dict[str, int | None]:
    """Sum up the reported use; None where calls were answered and none of them reported any."""
    if _unreported(sent):
        return {"prompt": None, "completion": None}
    return {
        "prompt": sum(group.prompt_tokens for group in sent),
        "completion": sum(group.completion_tokens for group in sent),
    }


def _usd(groups: Sequence[CallGroup], priced: bool) -> float | None:
    if not priced or _unreported([group for group in groups if group.state == "done" and not group.cached]):
        return None
    return sum(group.cost_usd for group in groups)


def _unreported(sent: Sequence[CallGroup]) -> bool:
    n = _count(sent)
    return n > 0 and sum(group.n_without_usage for group in sent) == n


def _count(groups: Iterable[CallGroup]) -> int:
    return sum(group.n for group in groups)


def _total(tokens: Mapping[str, int | None]) -> int | None:
    prompt, completion = tokens["prompt"], tokens["completion"]
    return None if prompt is None or completion is None else prompt + completion


def _ratio(amount: float | None, units: float | None) -> float | None:
    return amount / units if amount is not None and units else None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after
