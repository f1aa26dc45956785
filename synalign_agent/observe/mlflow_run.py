"""A run in MLflow for each session: configuration as parameters, rounds as steps, prompts, the report, and the data's digests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synalign_agent.config import MLflowConfig, SessionConfig, walk_fields
from synalign_agent.observe.events import DataVersion, Observer, PromptVersion, RoundResult, SessionEnd, SessionStart

# Before mlflow is imported. By default the client asks a dead server seven times, with two minutes for each, and the run waits.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException, RestException

_RUN = "mlflow_run"
_PARAMS_PER_REQUEST = 100
_PARAM_CHARACTERS = 6000
_DIGEST_CHARACTERS = 36
_ROUND = "round"
"""A metric whose value is its step: how far the run is known to the server."""
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "waiting_for_review": "RUNNING"}
_ARTIFACTS = (("report.html", None), ("report.json", None), ("export/README.md", "export"))
"""File in the session's folder, and folder in the run."""


class MLflowRun(Observer):
    """Keeps the run's id with the session, so that a session that goes on goes on in its run."""

    def __init__(self, config: MLflowConfig) -> None:
        self._config = config
        self._client = MlflowClient(tracking_uri=config.tracking_uri)
        self._run_id = ""
        self._last_round = 0

    def on_session_start(self, session: SessionStart) -> None:
        run = self._known_run(session) or self._new_run(session)
        self._run_id = run.info.run_id
        self._last_round = int(run.data.metrics.get(_ROUND, 0))
        params = _params(session.config)
        # Parameters of a run cannot change: what a resume changed shows in the artifact, which is replaced.
        self._log_params({name: value for name, value in params.items() if name not in run.data.params})
        self._client.set_tag(self._run_id, "synalign.config_fingerprint", session.config_fingerprint)
        self._client.log_text(self._run_id, session.config.to_yaml(), "config.yaml")
        self._log_prompts(session.prompts)

    def on_round_end(self, result: RoundResult) -> None:
        if result.round <= self._last_round:
            return  # told again after a kill
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), now, result.round)
            for name, value in _metrics(result).items()
            if value is not None
        ]
        self._client.log_batch(self._run_id, metrics=metrics)
        self._last_round = result.round

    def on_session_end(self, session: SessionEnd) -> None:
        tags = {"synalign.status": session.status, "synalign.stop_reason": session.stop_reason or ""}
        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        dataset = session.folder / "export" / "dataset.jsonl"
        if session.status == "finished" and dataset.exists():
            self._log_dataset(
                "synthetic", dataset.name, _file_digest(dataset), {"n_selected": session.summary["n_selected"]}
            )
        if self._config.artifacts:
            for name, folder in _ARTIFACTS:
                if (session.folder / name).exists():
                    self._client.log_artifact(self._run_id, str(session.folder / name), folder)
        self._client.set_terminated(self._run_id, _STATUS.get(session.status, "FAILED"))

    def _known_run(self, session: SessionStart) -> Run | None:
        run_id = session.kept.get(_RUN)
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except RestException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None  # another server, or somebody deleted it
            raise
        self._client.update_run(run_id, status="RUNNING")
        return run

    def _new_run(self, session: SessionStart) -> Run:
        run = self._client.create_run(
            self._experiment_id(),
            run_name=session.thread_id,
            tags={"synalign.thread_id": session.thread_id, "mlflow.source.name": "synalign"},
        )
        session.kept[_RUN] = run.info.run_id
        self._run_id = run.info.run_id
        self._log_real_rows(session.data)
        return run

    def _experiment_id(self) -> str:
        name = self._config.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:
            found = self._client.get_experiment_by_name(name)  # made by another session at the same moment
            if found is None:
                raise
            return str(found.experiment_id)

    def _log_params(self, params: Mapping[str, str]) -> None:
        entries = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(entries), _PARAMS_PER_REQUEST):
            self._client.log_batch(self._run_id, params=entries[start : start + _PARAMS_PER_REQUEST])

    def _log_prompts(self, prompts: Sequence[PromptVersion]) -> None:
        tags = [RunTag(f"synalign.prompt.{prompt.name}", f"{prompt.version} {prompt.sha256}") for prompt in prompts]
        self._client.log_batch(self._run_id, tags=tags)
        for prompt in prompts:
            self._client.log_text(self._run_id, prompt.template, f"prompts/{prompt.name}-{prompt.version}.md.j2")

    def _log_real_rows(self, data: DataVersion) -> None:
        # The name alone of a local file: folders of this machine mean nothing on the server.
        source = Path(data.source).name if os.path.isabs(data.source) else data.source
        profile = {"n_reference": data.n_reference, "n_holdout": data.n_holdout, "n_labels": len(data.labels)}
        self._log_dataset("real", source, data.digest, profile)

    def _log_dataset(self, context: str, name: str, digest: str, profile: Mapping[str, Any]) -> None:
        dataset = Dataset(
            name=name, digest=digest[:_DIGEST_CHARACTERS], source_type="local", source=name, profile=json.dumps(profile)
        )
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, [tag])])


def _params(config: SessionConfig) -> dict[str, str]:
    fields = walk_fields(config)
    return {name: str(value)[:_PARAM_CHARACTERS] for name, _, value in fields if not name.startswith("observability.")}


def _metrics(result: RoundResult) -> dict[str, float | None]:
    return {
        _ROUND: result.round,
        "mmd2.raw": result.mmd2.raw,
        "mmd2.aligned": result.mmd2.aligned,
        "mmd2.floor": result.mmd2.floor,
        "mmd2.target": result.mmd2.target,
        "n_eq": result.n_eq,
        "ess": result.ess,
        "p_value": result.p_value,
        "coverage": result.coverage,
        "n_pool": result.n_pool,
        "n_selected": result.n_selected,
        "calls.done": result.n_calls,
        "calls.failed": result.n_failed_calls,
        "tokens.prompt": result.prompt_tokens,
        "tokens.completion": result.completion_tokens,
        "cost_usd": result.cost_usd,
        "seconds": result.seconds,
        **{f"rejected.{_metric_name(reason)}": count for reason, count in result.rejections.items()},
    }


def _metric_name(reason: str) -> str:
    return re.sub(r"[^\w./ -]", "_", reason)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
