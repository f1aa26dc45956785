"""The report of a session as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from synalign_agent.report.figures import MapPoint, map_figure, mmd2_by_round

_MAX_PAIRS = 50
_PAIRS_IN_VIEW = 10
_MAX_EXAMPLE_CHARACTERS = 600

_STOP_REASONS = {
    "target_reached": "the target is reached",
    "patience": "the distance no longer fell",
    "max_rounds": "the round limit is reached",
    "max_calls": "the call limit is reached",
    "max_tokens": "the token limit is reached",
    "max_usd": "the cost limit is reached",
    "no_new_samples": "no new samples passed the gates",
}

_REASONS = {
    "call": "The call failed",
    "copy_cosine": "Too close to a real row in meaning",
    "copy_words": "Shares a run of words with a real row",
    "duplicate": "Same words as an earlier sample",
    "empty": "Empty text",
    "empty_reply": "Empty reply",
    "label_judged": "The model judged it to have another label",
    "label_mismatch": "Its nearest real rows have another label",
    "length_cut": "Reply cut by the token limit",
    "malformed": "Reply was not valid JSON",
    "near_duplicate": "Too close to an earlier sample in meaning",
    "off_schema": "Reply did not follow the schema",
    "refused": "The model refused",
    "repetitive": "Repeats itself",
    "text_cut": "Text cut by the schema's length limit",
    "too_long": "Text too long",
    "too_short": "Text too short",
}

_PLOTLY_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": False,
    # Plotly's button "Share chart" would send private texts to its makers. It is on by default in plotly.js 4.
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
}


def render_report(
    *,
    summary: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    points: Sequence[MapPoint],
    rejection_examples: Mapping[str, Sequence[tuple[str, str]]],
    samples: Sequence[Mapping[str, Any]],
    attributes: Sequence[Mapping[str, Any]],
    config_yaml: str,
    ledger: Mapping[str, Any] | None = None,
) -> str:
    """Return the page. The same arguments give the same page.

    Args:
        summary: the session's numbers, as in `report/summary.py`; None is shown as "not measured".
        rounds: the metrics of each round, oldest first.
        points: rows on the map, at most 3000 per group.
        rejection_examples: reason -> (text, detail) of a few rejections.
        samples: selected rows with `text`, `label`, `weight`, `nearest_real_text` and `nearest_similarity`; the 50 most
            similar are shown.
        attributes: demonstration clusters with `label`, `attributes` and `demonstrations`.
        config_yaml: the configuration.
        ledger: what the calls cost and bought, as in `report/ledger.py`; None leaves its tables out.
    """
    figures = _figures_html(rounds, points)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=_number, usd=_usd, duration=_duration, shorten=_shorten, thousandth=_thousandth)
    source = resources.files("synalign_agent.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    pairs = sorted(samples, key=lambda row: _or(row["nearest_similarity"], -math.inf), reverse=True)[:_MAX_PAIRS]
    return environment.from_string(source).render(
        summary=summary,
        mmd2=_with_keys(summary.get("mmd2"), ("raw", "aligned", "floor", "floor_quantile", "target", "reference")),
        rows_worth=_rows_worth(summary),
        times_floor=_times_floor(summary.get("mmd2") or {}),
        per_label=_per_label(summary),
        verdict=_verdict(summary),
        state=_state(summary),
        reference_note=_reference_note((summary.get("mmd2") or {}).get("reference")),
        rounds=[
            {**entry, "mmd2": _with_keys(entry.get("mmd2"), ("raw", "aligned", "floor", "target"))} for entry in rounds
        ],
        rounds_text=_rounds_text(rounds),
        map_groups=_map_groups(points),
        figures=figures,
        rejections=_rejections(summary.get("rejections") or {}, rejection_examples),
        pairs_in_view=pairs[:_PAIRS_IN_VIEW],
        pairs_folded=pairs[_PAIRS_IN_VIEW:],
        attributes=attributes,
        calls=_with_keys(summary.get("calls"), ("done", "failed", "repeated", "in_flight_lost")),
        tokens=_with_keys(summary.get("tokens"), ("prompt", "completion")),
        coverage=_with_keys(summary.get("coverage"), ("explored", "random", "n_demonstrations")),
        config_yaml=config_yaml,
        ledger=ledger,
        forks=[_fork_sentence(fork) for fork in summary.get("lineage") or ()],
    )


def _fork_sentence(fork: Mapping[str, Any]) -> str:
    changes = "; ".join(fork["changes"]) or "nothing in the configuration"
    return f"Forked from session {fork['parent']} at round {fork['from_round']}, changing {changes}."


def _figures_html(rounds: Sequence[Mapping[str, Any]], points: Sequence[MapPoint]) -> dict[str, Markup]:
    """Return a div for each figure that has something to show; the first one brings plotly.js with it."""
    figures: dict[str, Any] = {}
    by_round = mmd2_by_round(rounds)
    if by_round.data:
        figures["rounds"] = by_round
    if points:
        figures["map"] = map_figure(points)
    return {
        name: Markup(  # plotly writes its JSON with <, > and & escaped
            figure.to_html(
                config=_PLOTLY_CONFIG,
                include_plotlyjs="inline" if place == 0 else False,
                full_html=False,
                div_id=f"figure-{name}",
            )
        )
        for place, (name, figure) in enumerate(figures.items())
    }


def _verdict(summary: Mapping[str, Any]) -> str:
    mmd2, n_eq = summary.get("mmd2") or {}, summary.get("n_eq") or {}
    aligned, raw, floor = mmd2.get("aligned"), mmd2.get("raw"), mmd2.get("floor")
    if aligned is None:
        return "How close the data are to real rows was not measured."
    if n_eq.get("aligned") is not None:
        sentence = f"Aligned data are worth {_rounded(n_eq['aligned'])} real rows per MMD²"
    else:
        sentence = f"Aligned data are closer to the real rows than MMD² can tell apart ({_brief(aligned)})"
    if n_eq.get("raw") is not None:
        sentence += f", raw data {_rounded(n_eq['raw'])}"
    elif raw is not None:
        sentence += f", raw data score {_brief(raw)}"
    return sentence + (f"; real rows at this size would score {_brief(floor)}." if floor is not None else ".")


def _state(summary: Mapping[str, Any]) -> str:
    mmd2 = summary.get("mmd2") or {}
    aligned, target, reason = mmd2.get("aligned"), mmd2.get("target"), summary.get("stop_reason")
    sentences = []
    if aligned is not None and target is not None:
        met = "is met" if aligned <= target else "is not met"
        sentences.append(f"The target of {_brief(target)} {met}: the aligned data score {_brief(aligned)}.")
    n_selected, n_requested = summary.get("n_selected"), summary.get("n_requested")
    if n_selected is not None and n_requested is not None:
        share = f"all {n_requested:,}" if n_selected == n_requested else f"{n_selected:,} of {n_requested:,}"
        sentences.append(f"The dataset holds {share} rows asked for.")
    if reason:
        sentences.append(f"The run stopped because {_STOP_REASONS.get(reason, f'of “{reason}”')}.")
    else:
        sentences.append(f"The run has not come to its end (status: {summary.get('status') or 'unknown'}).")
    return " ".join(sentences)


def _reference_note(reference: str | None) -> str | None:
    if reference == "holdout":
        return None
    if reference == "reference":
        return (
            "No real rows were held out. Distances are to the same real rows that the model saw and that the weights "
            "were fitted to, so they look better than distances to unseen rows would."
        )
    if reference == "mixed":
        return (
            "Some labels have no held-out rows. For those labels, distances are to the same real rows that the model "
            "saw and that the weights were fitted to, so they look better than distances to unseen rows would."
        )
    return "Distances were not measured, or it is not known to which real rows."


def _rows_worth(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return n_eq of every column of the key table; the target's follows as n_eq x MMD2 is the same for all."""
    mmd2, n_eq = summary.get("mmd2") or {}, summary.get("n_eq") or {}
    target = mmd2.get("target")
    measured = [key for key in ("aligned", "raw") if n_eq.get(key) is not None and mmd2.get(key) is not None]
    scale = n_eq[measured[0]] * mmd2[measured[0]] if measured else None
    return {
        "raw": n_eq.get("raw"),
        "aligned": n_eq.get("aligned"),
        "floor": summary.get("n_selected") if mmd2.get("floor") is not None else None,
        "target": scale / target if scale is not None and target is not None and target > 0 else None,
    }


def _times_floor(mmd2: Mapping[str, Any]) -> dict[str, float | None]:
    floor = mmd2.get("floor")
    usable = floor is not None and floor > 0
    return {
        key: mmd2[key] / floor if usable and mmd2.get(key) is not None else None
        for key in ("raw", "aligned", "floor", "target")
    }


def _per_label(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = (summary.get("per_label") or {}).items()
    return [
        {
            "label": label,
            **_with_keys(row, ("n_requested", "n_selected", "n_pool")),
            "mmd2": _with_keys(row.get("mmd2"), ("raw", "aligned", "floor", "floor_quantile")),
            "n_eq": _with_keys(row.get("n_eq"), ("raw", "aligned")),
        }
        for label, row in rows
    ]


def _rounds_text(rounds: Sequence[Mapping[str, Any]]) -> str:
    aligned = [(entry["round"], entry["mmd2"].get("aligned")) for entry in rounds]
    scored = [(round, value) for round, value in aligned if value is not None]
    if not scored:
        return "MMD² was not measured in any round."
    best_round, best = min(scored, key=lambda pair: (pair[1], pair[0]))
    (first_round, first), (last_round, last) = scored[0], scored[-1]
    if len(scored) == 1:
        return f"MMD² of the aligned data is {_brief(last)} after round {last_round}."
    way = f"{_brief(first)} after round {first_round} to {_brief(last)} after round {last_round}"
    end = ", its lowest" if best_round == last_round else f"; it was lowest, {_brief(best)}, after round {best_round}"
    return f"MMD² of the aligned data goes from {way}{end}."


def _map_groups(points: Sequence[MapPoint]) -> list[dict[str, Any]]:
    """Describe each group of points in numbers, for those who cannot see the map."""
    rows = []
    for group, name in (("real", "Real"), ("pool", "Pool, not selected"), ("selected", "Selected")):
        members = [point for point in points if point.group == group]
        if members:
            x, y = _mean_and_spread([point.x for point in members]), _mean_and_spread([point.y for point in members])
            rows.append({"name": name, "n": len(members), "x": x, "y": y})
    return rows


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return (0.0 if abs(mean) < 1e-9 * spread else mean), spread  # the real rows are centred up to rounding


def _rejections(counts: Mapping[str, int], examples: Mapping[str, Sequence[tuple[str, str]]]) -> list[dict[str, Any]]:
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [
        {"reason": reason, "meaning": _meaning(reason), "n": counts[reason], "examples": examples.get(reason, ())}
        for reason in ordered
    ]


def _meaning(reason: str) -> str:
    if reason in _REASONS:
        return _REASONS[reason]
    kind, _, rest = reason.partition("_")
    if kind == "attributes" and rest:
        return f"Attribute summary: {_meaning(rest)[0].lower()}{_meaning(rest)[1:]}"
    if kind == "call" and rest:
        return f"{_REASONS[kind]}: {rest.replace('_', ' ')}"
    return reason.replace("_", " ").capitalize()


def _with_keys(values: Mapping[str, Any] | None, keys: Sequence[str]) -> dict[str, Any]:
    return {key: (values or {}).get(key) for key in keys}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


_NOT_MEASURED = Markup('<span class="missing" role="img" aria-label="not measured" title="not measured">–</span>')


def _number(value: float | None) -> Markup:
    """Return an integer as it is and any other number with 4 significant digits."""
    if value is None or not math.isfinite(value):
        return _NOT_MEASURED
    if isinstance(value, int):
        return Markup(f"{value:,}".replace("-", "−"))
    return Markup(_digits(value, 4))


def _digits(value: float, n_digits: int) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{n_digits - 1}e}".split("e")
    power = int(exponent)
    if -5 < power < 6:
        text = f"{value:,.{max(0, n_digits - 1 - power)}f}"
    else:
        text = f"{mantissa} × 10{str(power).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _brief(value: float) -> str:
    return _digits(value, 3)


def _rounded(n: float) -> str:
    return f"{n:,.0f}" if n >= 10 else _digits(n, 2)


def _usd(value: float | None) -> Markup:
    return _NOT_MEASURED if value is None else Markup("${}").format(_number(value))


def _thousandth(value: float | None) -> float | None:
    """Turn a price of 1, which no MMD² ever falls by, into one of 0.001."""
    return None if value is None else value / 1000


def _duration(seconds: float | None) -> Markup:
    if seconds is None or not math.isfinite(seconds):
        return _NOT_MEASURED
    if seconds < 59.95:
        return Markup(f"{_digits(seconds, 3)} s")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return Markup(f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s")


def _shorten(text: str) -> Markup:
    """Cut what would fill the page, such as a whole reply, and say so."""
    if len(text) <= _MAX_EXAMPLE_CHARACTERS:
        return escape(text)
    n_more = len(text) - _MAX_EXAMPLE_CHARACTERS
    cut = Markup('{}… <span class="muted">({} more characters)</span>')
    return cut.format(text[:_MAX_EXAMPLE_CHARACTERS], f"{n_more:,}")
