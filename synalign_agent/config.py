"""The configuration of a session: what to match, with which models, how far to go.

Every field carries its meaning, unit and default here; `synalign init` writes them as comments and `synalign config schema`
as JSON Schema, so that there is one place to read and one to change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from synalign_agent.errors import ConfigError

FINGERPRINT_VERSION = 1
EXAMPLE_PREFIX = "example:"
FILE_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".gguf"})

# Marks fields that cannot change what is generated or chosen: they may differ between two openings of one session.
OPERATIONAL: dict[str, JsonValue] = {"operational": True}

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the configuration; unknown fields are refused, so that a typo never passes silently."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class DataConfig(Section):
    """The real rows to match."""

    path: str = Field(
        description="JSONL, CSV or Parquet file (relative to this file), a Hugging Face dataset id or folder, or "
        "`example:customer_messages`."
    )
    format: Literal["auto", "jsonl", "csv", "parquet", "huggingface"] = Field(
        "auto", description="How to read `path`; `auto` goes by the file name."
    )
    hf_split: str = Field("train", description="Which split of a Hugging Face dataset to read.")
    text_column: str = Field("text", description="Field that holds the text.")
    label_column: str | None = Field(
        "label", description="Field that holds the label; null treats all rows as one group."
    )
    encoding: str = Field("utf-8", description="Encoding of JSONL and CSV files.")
    holdout_fraction: float = Field(
        0.2, ge=0.0, lt=1.0, description="Share of each label's rows kept for scoring only (0 turns the hold-out off)."
    )
    min_holdout_rows: int = Field(
        20,
        ge=2,
        description="Least rows held out per label; a label with fewer than twice as many rows gets no hold-out.",
    )


class LLMPrices(Section):
    """What the endpoint charges. There is no built-in price table: without these, cost is reported as 0."""

    prompt_usd_per_million_tokens: float = Field(0.0, ge=0.0, description="USD per million prompt tokens.")
    completion_usd_per_million_tokens: float = Field(0.0, ge=0.0, description="USD per million completion tokens.")


class LLMConfig(Section):
    """The model that writes. Fields left at null come from the model's profile (see `synalign config check`)."""

    provider: Literal["openai", "embedded"] = Field(
        "openai",
        description="`openai`: any OpenAI-compatible server. `embedded`: llama.cpp inside this process, no key, no network.",
    )
    base_url: str | None = Field(
        None, description="Base URL of the endpoint, ending in /v1 (provider `openai`; null = api.openai.com)."
    )
    model: str | None = Field(
        None,
        description="Model name, or for `embedded` a GGUF path or `hf:<repo>:<file>` (null = the packaged SmolLM2-135M).",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Environment variable that holds the API key; local servers need none.",
        json_schema_extra=OPERATIONAL,
    )
    temperature: float | None = Field(None, ge=0.0, le=2.0, description="Sampling temperature (null = profile).")
    max_tokens: int | None = Field(
        None, ge=16, description="Most completion tokens a call may use (null = derived from the text length limit)."
    )
    extra_body: dict[str, JsonValue] | None = Field(
        None, description="More request fields, sent as they are, e.g. {min_p: 0.05} (null = profile)."
    )
    schema_limits: bool | None = Field(
        None,
        description="Put text length limits into the JSON schema; some hosted APIs refuse them (null = profile).",
    )
    concurrency: int | None = Field(
        None, ge=1, description="Most calls in flight (null = profile).", json_schema_extra=OPERATIONAL
    )
    timeout_seconds: float | None = Field(
        None, gt=0, description="Time limit of one request, in seconds (null = profile).", json_schema_extra=OPERATIONAL
    )
    max_attempts: int = Field(
        5, ge=1, description="Most attempts per call when the error is worth a retry.", json_schema_extra=OPERATIONAL
    )
    max_failed_share: Share = Field(
        0.5,
        description="The run stops, resumable, when more than this share of the last 20 calls failed.",
        json_schema_extra=OPERATIONAL,
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the embedded model (null = all cores).", json_schema_extra=OPERATIONAL
    )
    prices: LLMPrices = Field(default_factory=LLMPrices, description="Prices for the cost ledger and the USD limit.")


class EncoderConfig(Section):
    """The sentence encoder in whose space distributions are compared."""

    model: str | None = Field(
        None, description="sentence-transformers id or path (null = the packaged all-MiniLM-L6-v2)."
    )
    device: str | None = Field(
        None, description="torch device, e.g. cpu or cuda (null = automatic).", json_schema_extra=OPERATIONAL
    )
    precision: Literal["auto", "float32", "bfloat16", "onnx"] = Field(
        "auto",
        description="`auto` takes the fastest whose vectors are those of float32: bfloat16 where the CPU has it, else ONNX "
        "Runtime where it is installed.",
    )
    batch_size: int = Field(32, ge=1, description="Texts per batch.", json_schema_extra=OPERATIONAL)


class ExploreConfig(Section):
    """Which real rows become demonstrations."""

    strategy: Literal["gp", "gp_gap", "random", "kmeans", "farthest"] = Field(
        "gp_gap",
        description="`gp`: greatest posterior variance; `gp_gap`: the same, weighted by what the synthetic data misses; "
        "`random`, `kmeans` and `farthest` (point) for comparison.",
    )
    kernel: Literal["rbf", "matern12", "matern32", "matern52", "rq"] = Field(
        "rbf", description="GP kernel: RBF, Matern (nu = 1/2, 3/2, 5/2) or rational quadratic."
    )
    device: str | None = Field(
        None,
        description="torch device for the GP, e.g. cuda (null = this processor, which picks the same).",
        json_schema_extra=OPERATIONAL,
    )
    cluster_size: int = Field(5, ge=1, description="Demonstrations per cluster: a row and its nearest neighbours.")
    lengthscale_factor: float = Field(
        0.7, gt=0, description="GP lengthscale as a multiple of the label's median pairwise distance (0.5 to 1 works)."
    )
    noise: float = Field(1e-4, gt=0, description="GP noise variance (the kernel's variance is 1).")
    gap_floor: float = Field(0.1, ge=0, description="Weight of rows without a gap, relative to the largest gap.")


class AttributesConfig(Section):
    """The latent attributes that the LLM reads off each cluster."""

    enabled: bool = Field(True, description="Summarise clusters into attributes before generating.")
    dimensions: dict[str, str] | None = Field(
        None,
        description="Dimension name -> what it means, e.g. {tone: 'mood of the writer'} (null = proposed once by the LLM, "
        "then frozen).",
    )
    n_dimensions: int = Field(4, ge=1, le=12, description="How many dimensions to propose when none are given.")


class GenerateConfig(Section):
    """How new rows are written."""

    samples_per_call: int | None = Field(None, ge=1, le=100, description="Texts per call (null = profile).")
    calls_per_cluster: int | None = Field(None, ge=1, description="Calls per cluster and round (null = profile).")
    demonstrations: Literal["none", "prompt", "chat"] | None = Field(
        None,
        description="Show the cluster's real rows to the writer: not at all, as a list, or as earlier chat turns "
        "(null = profile).",
    )


class LengthGateConfig(Section):
    """Length limits, in characters."""

    min_characters: int | None = Field(
        None, ge=1, description="Shortest text accepted (null = half the real 1 % quantile)."
    )
    max_characters: int | None = Field(
        None, ge=1, description="Longest text accepted (null = 1.5 times the real 99 % quantile)."
    )


class CopyGateConfig(Section):
    """Protection against copies of real rows (reference and hold-out)."""

    max_shared_words: int = Field(
        8, ge=3, description="A run of this many words in a row, shared with one real row, is a copy."
    )
    max_cosine: float = Field(0.95, gt=0, le=1, description="Cosine similarity to a real row above which it is a copy.")


class LabelGateConfig(Section):
    """Does the text carry the label that was asked for?"""

    method: Literal["nearest", "llm", "none"] = Field(
        "nearest", description="`nearest`: vote of the nearest real rows; `llm`: a judge prompt (one call per sample)."
    )
    neighbours: int = Field(
        10, ge=1, description="Real rows that vote, weighted by the inverse of their label's share."
    )
    min_vote: Share = Field(0.2, description="Least share of the vote for the label asked for.")


class GatesConfig(Section):
    """What a text must pass before it joins the pool."""

    length: LengthGateConfig = Field(default_factory=LengthGateConfig, description="Length limits.")
    max_repetition: Share = Field(
        0.35, description="Largest share of a text's word pairs that may repeat an earlier pair of the same text."
    )
    duplicate_cosine: float = Field(
        0.95, gt=0, le=1, description="Cosine similarity to an earlier sample above which a text is a near duplicate."
    )
    copy_check: CopyGateConfig = Field(default_factory=CopyGateConfig, description="Copies of real rows.")
    label_check: LabelGateConfig = Field(default_factory=LabelGateConfig, description="Label agreement.")


class AlignConfig(Section):
    """How the pool is weighed and resampled."""

    oversampling: float = Field(
        2.0, ge=1.0, description="Pool size, as a multiple of n_samples, before the first stop test."
    )
    label_prior: Literal["real", "uniform"] | dict[str, float] = Field(
        "real", description="Label shares of the result: as in the real data, uniform, or {label: share}."
    )
    objective: Literal["kernel", "projection", "herding", "thinning", "none"] = Field(
        "kernel",
        description="`kernel`: weights of least MMD; the others for comparison: the paper's random `projection`, kernel "
        "`herding`, kernel `thinning`, or uniform weights.",
    )
    max_copies: int = Field(1, ge=1, description="How often one text may appear in the result.")
    min_ess: float | None = Field(
        None, gt=0, description="Least effective sample size of the weights, of `kernel` (null = no limit)."
    )
    swaps: bool = Field(True, description="Exchange single rows of the result while that lowers the MMD, for `kernel`.")
    lengthscale_multipliers: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        [0.5, 1.0, 2.0],
        min_length=1,
        description="The MMD kernel is a mean of RBF kernels with these multiples of the median distance.",
    )
    tolerance: float = Field(1e-6, gt=0, description="Duality gap at which the weights count as solved.")


class TargetConfig(Section):
    """When the data are close enough."""

    mmd2: Literal["auto"] | Annotated[float, Field(allow_inf_nan=False)] = Field(
        "auto",
        description="Squared MMD to reach: a number, or `auto` = what real rows reach at the same sizes (quantile 1 - alpha).",
    )
    n_equivalent: float | None = Field(
        None, gt=0, description="Instead of mmd2: be worth this many real rows (null = use mmd2)."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Tail probability of the `auto` target.")


class LimitsConfig(Section):
    """Where the run stops even if the target is not met. A limit is checked before each call and never passed."""

    max_rounds: int = Field(12, ge=1, description="Most rounds of explore, summarise, generate, align.")
    patience_rounds: int = Field(2, ge=1, description="Stop after this many rounds in a row without a gain.")
    min_gain: Share = Field(0.02, description="A smaller relative fall of MMD2 in a round is no gain.")
    max_calls: int | None = Field(None, ge=1, description="Most LLM calls (null = no limit).")
    max_tokens: int | None = Field(None, ge=1, description="Most prompt plus completion tokens (null = no limit).")
    max_usd: float | None = Field(None, gt=0, description="Most USD, by `llm.prices` (null = no limit).")


class SessionConfig(Section):
    """Everything that defines a session."""

    data: DataConfig = Field(description="The real rows to match.")
    task: str = Field(
        "short texts", min_length=1, description="What the texts are, in a few words; the prompts use it."
    )
    n_samples: int = Field(300, ge=1, description="Synthetic rows to deliver.")
    seed: int = Field(0, ge=0, description="Seed of every random choice, also sent to the LLM.")
    runs_dir: str = Field("runs", description="Folder that holds the session folders.", json_schema_extra=OPERATIONAL)
    prompts_dir: str | None = Field(None, description="Folder with your own prompt files, which win over the packaged.")
    round_samples: int | None = Field(
        None, ge=1, description="Texts to ask for per round (null = a third of the pool wanted)."
    )
    llm: LLMConfig = Field(default_factory=LLMConfig, description="The model that writes.")
    encoder: EncoderConfig = Field(default_factory=EncoderConfig, description="The sentence encoder.")
    explore: ExploreConfig = Field(default_factory=ExploreConfig, description="Explorer.")
    attributes: AttributesConfig = Field(default_factory=AttributesConfig, description="Attribute summarizer.")
    generate: GenerateConfig = Field(default_factory=GenerateConfig, description="Generator.")
    gates: GatesConfig = Field(default_factory=GatesConfig, description="Gates before the pool.")
    align: AlignConfig = Field(default_factory=AlignConfig, description="Aligner.")
    target: TargetConfig = Field(default_factory=TargetConfig, description="Target distance.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Rounds, calls, tokens and money.")

    @property
    def pool_target(self) -> int:
        """Accepted samples wanted before the first stop test."""
        return round(self.align.oversampling * self.n_samples)

    @classmethod
    def load(cls, path: str | Path, *, resolve_paths: bool = True) -> SessionConfig:
        """Read and validate a YAML file; relative paths in it are taken relative to the file, unless told otherwise.

        Raises:
            ConfigError: the file is missing, is not YAML, or a field is unknown or out of range (all of them are named).
        """
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; `synalign init {path}` writes one to start from") from None
        except (
            OSError,
            ValueError,
            RecursionError,
            yaml.YAMLError,
        ) as error:  # ValueError: a date that is none, a byte that is not UTF-8
            raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: expected `field: value` lines at the top level, found {type(raw).__name__}")
        config = cls.parse(raw, source=str(path))
        return config.resolve_paths(path.parent) if resolve_paths else config

    @classmethod
    def parse(cls, raw: Mapping[str, Any], *, source: str = "config") -> SessionConfig:
        """Validate plain values; `source` names their origin in errors."""
        try:
            return cls.model_validate(dict(raw))
        except ValidationError as error:
            lines = [f"{source}: {_where(item['loc'])}: {_plain(item)}" for item in error.errors()]
            raise ConfigError("\n".join(lines)) from None

    def resolve_paths(self, folder: Path) -> SessionConfig:
        """Return a copy whose existing relative paths are absolute, seen from `folder`."""
        prompts_dir = (
            None if self.prompts_dir is None else str((folder / Path(self.prompts_dir).expanduser()).resolve())
        )
        return self.model_copy(
            update={
                "data": self.data.model_copy(update={"path": resolve_path(self.data.path, folder)}),
                "llm": self.llm.model_copy(update={"model": self.llm.model and resolve_path(self.llm.model, folder)}),
                "encoder": self.encoder.model_copy(
                    update={"model": self.encoder.model and resolve_path(self.encoder.model, folder)}
                ),
                "prompts_dir": prompts_dir,
            }
        )

    def with_overrides(self, overrides: Mapping[str, Any], *, source: str = "option") -> SessionConfig:
        """Return a copy with `{"llm.model": value, ...}` replaced; values that are None are left alone."""
        raw = self.model_dump()
        for dotted, value in overrides.items():
            if value is None:
                continue
            node: Any = raw
            *parents, last = dotted.split(".")
            for name in parents:
                node = node.get(name) if isinstance(node, dict) else None
            if not isinstance(node, dict) or last not in node:
                raise ConfigError(f"{source}: {dotted}: unknown field; `synalign config schema` lists the known ones")
            node[last] = value
        return type(self).parse(raw, source=source)

    def to_yaml(self) -> str:
        """Return the values as YAML, without comments."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """Hash every field that can change the result (16 hex digits); operational fields do not count."""
        relevant = dict(self._relevant())
        payload = json.dumps({"version": FINGERPRINT_VERSION, **relevant}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(payload.encode()).hexdigest()[:16]

    def changes(self, other: SessionConfig) -> list[str]:
        """List `field: mine -> other's` for each field that the fingerprint counts and that differs."""
        mine, theirs = dict(self._relevant()), dict(other._relevant())
        return [
            f"{name}: {mine.get(name)!r} -> {theirs.get(name)!r}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def _relevant(self) -> Iterator[tuple[str, Any]]:
        for dotted, info, value in walk_fields(self):
            if not (isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("operational")):
                yield dotted, value


def walk_fields(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield `(dotted name, field info, plain value)` of every leaf field, in declaration order."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from walk_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info, value


def resolve_path(name: str, folder: Path) -> str:
    """Return `name` as an absolute path if it is a file's name or a path that exists, seen from `folder`; else unchanged.

    Hugging Face ids look like relative paths; what exists, or ends like a data or model file, is none.
    """
    if name.startswith((EXAMPLE_PREFIX, "hf:")):
        return name
    local = folder / Path(name).expanduser()
    return str(local.resolve()) if local.suffix.lower() in FILE_SUFFIXES or local.exists() else name


def _where(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location) or "(top level)"


def _plain(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown field; `synalign config schema` lists the known ones"
    return f"{item['msg']} (got {item['input']!r})" if item["type"] != "missing" else "this field is required"
