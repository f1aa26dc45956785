"""Everything that can be checked before the first call: data, prompts, encoder, endpoint."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.data.reader import read_rows
from synalign_agent.data.split import split_rows, split_warnings
from synalign_agent.errors import EndpointError
from synalign_agent.llm.failures import classify
from synalign_agent.llm.providers import Endpoint, open_endpoint
from synalign_agent.prompting.catalog import PromptCatalog

_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found in order."""

    checks: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fingerprint: str = ""


def preflight(path: Path) -> Preflight:
    """Check a configuration file.

    Raises:
        SynAlignError: the first thing that is wrong, with what to do.
    """
    config = wiring.resolve(SessionConfig.load(path))
    wiring.check_setup(config.llm)
    raw = read_rows(config.data)
    rows = split_rows(
        raw.texts, raw.labels, holdout_fraction=config.data.holdout_fraction,
        min_holdout_rows=config.data.min_holdout_rows, seed=config.seed,
    )  # fmt: skip
    counts = Counter(row.label for row in rows)
    n_held_out = sum(row.split == "holdout" for row in rows)
    templates = PromptCatalog.load(config.prompts_dir).templates.values()
    dimension = wiring.make_encoder(config).encode([rows[0].text]).shape[1]
    with open_endpoint(config.llm) as endpoint:
        endpoint_text = _endpoint_answers(endpoint)
    return Preflight(
        checks={
            "data": f"{len(rows)} rows, {len(counts)} labels ({', '.join(f'{k} {v}' for k, v in counts.most_common(8))}), "
            f"{n_held_out} held out",
            "prompts": ", ".join(f"{template.name} {template.version}" for template in templates),
            "encoder": f"{config.encoder.model or 'all-MiniLM-L6-v2 (packaged)'}, {dimension} dimensions",
            "model": endpoint_text,
            "profile": f"temperature {config.llm.temperature}, {config.generate.samples_per_call} texts a call, "
            f"demonstrations: {config.generate.demonstrations}, {config.llm.concurrency} calls at a time",
        },
        warnings=[*raw.warnings, *split_warnings(rows)],
        fingerprint=config.fingerprint(),
    )


def _endpoint_answers(endpoint: Endpoint) -> str:
    """Ask for the list of models, which costs nothing."""
    import openai

    client = openai.OpenAI(
        base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0, timeout=_TIMEOUT_SECONDS
    )
    try:
        served = [model.id for model in client.models.list()]
    except openai.NotFoundError:
        return f"{endpoint.model} at {endpoint.base_url} (the endpoint does not list its models)"
    except Exception as error:
        failure = classify(error, endpoint.base_url)
        raise EndpointError(
            failure.fatal
            or f"{endpoint.base_url} does not answer ({failure.error_class}: {error}); is llm.base_url right?"
        ) from None
    finally:
        client.close()
    if endpoint.model not in served and len(served) > 1:
        raise EndpointError(
            f"{endpoint.base_url} does not serve {endpoint.model!r}; it has {', '.join(sorted(served)[:10])}. Set llm.model"
        )
    return f"{endpoint.identity} at {endpoint.base_url}"
