"""A new session out of an old one: its first rounds as they are, its other calls ready to be used again."""

from __future__ import annotations

import itertools
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.errors import ConfigError, InputError, SessionError
from synalign_agent.event_loop import run_in_thread
from synalign_agent.report.summary import ERROR, LINEAGE
from synalign_agent.state import Context, RoundSummary, State
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.vectors import VectorStore

# Of how the parent ran, not of what it holds.
_OF_THE_RUN = ("status", ERROR, "stop_reason", "active_seconds", "reopened_with_changes", "owner")
# The dimensions are proposed in round 1 and frozen from then on.
_OF_ROUND_1 = ("dimensions",)
_KERNEL = "align.lengthscale_multipliers:"
_STORED_ALIKE = ("storage.url", "storage.encryption_key_env")


def fork_session(
    folder: Path,
    *,
    from_round: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    thread_id: str | None = None,
) -> Path:
    """Make a session beside `folder` that shares its rounds before `from_round`, and return the new folder.

    The rounds before `from_round` are copied with everything that belongs to them. Replies to calls of later rounds are kept
    aside: the fork uses one, instead of calling, whenever it asks exactly the same. The thread starts at `from_round`, and the
    old session, which may be running, is only read.

    Args:
        folder: the old session.
        from_round: first round that the fork makes itself, from 1 to one more than there are finished rounds (the default).
        overrides: `{"target.mmd2": 0.01, ...}`, dotted fields of the configuration and their new values; None, for a field
            that a model's profile fills in, stands for the profile's value.
        thread_id: name of the new session; by default the old one's with `-fork` and a number that is free.

    Raises:
        InputError: the round is out of range, or the name cannot be one.
        ConfigError: an override names no field, or has a value that the field cannot have.
        SessionError: an override would change what both share, the new session exists, or the old one cannot be read.
    """
    wiring.existing_session(folder.name, folder.parent)
    target = folder.parent / (thread_id or _free_name(folder))
    wiring.check_thread_id(thread_id or target.name)
    if target.exists():
        raise SessionError(f"{target}: exists already; choose another --thread-id")
    with _made_whole(folder, target) as unfinished:
        store = wiring.open_store(unfinished)
        try:
            from_round = _checked_round(folder, store, from_round)
            config, changes = _changed_config(folder, store, from_round, overrides or {})
            sections = {"parent": folder.name, "from_round": from_round, "overrides": dict(overrides or {})}
            lineage = json.loads(store.meta(LINEAGE) or "[]")
            lineage.append(
                {**sections, "changes": changes, "forked_at": datetime.now(UTC).isoformat(timespec="seconds")}
            )
            rounds = store.rounds()[: from_round - 1]
            store.cut(from_round, _OF_THE_RUN + (_OF_ROUND_1 if from_round == 1 else ()))
            store.set_meta(LINEAGE, json.dumps(lineage, ensure_ascii=False))
            store.set_meta("active_seconds", str(rounds[-1]["seconds"] if rounds else 0.0))
            wiring.keep_config(unfinished, store, config, target.name)
            _take_vectors(folder / "vectors", unfinished / "vectors", store)
        finally:
            store.close()
        if rounds:
            run_in_thread(_begin_thread(unfinished, target.name, config, rounds))
    return target


def _free_name(folder: Path) -> str:
    numbers = itertools.count(1)
    return next(name for n in numbers if not (folder.parent / (name := f"{folder.name}-fork{n}")).exists())


@contextmanager
def _made_whole(parent: Path, target: Path) -> Iterator[Path]:
    """Give a copy to work on that becomes `target` when the block ends and vanishes if it fails: nobody sees half of a fork."""
    unfinished = target.parent / f".fork-{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        with wiring.copied_rows(parent, unfinished) as give_rows_to:
            yield unfinished
            give_rows_to(target.name)
            try:
                unfinished.rename(target)
            except OSError as error:
                raise SessionError(f"{target}: cannot be made ({error}); choose another --thread-id") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _checked_round(folder: Path, store: SessionStore, from_round: int | None) -> int:
    n_finished = len(store.rounds())
    if from_round is None:
        return n_finished + 1
    if not 1 <= from_round <= n_finished + 1:
        raise InputError(
            f"session {folder.name} has finished {n_finished} rounds: a fork can start from round 1 to {n_finished + 1}, "
            f"not {from_round}"
        )
    return from_round


def _changed_config(
    folder: Path, store: SessionStore, from_round: int, overrides: Mapping[str, Any]
) -> tuple[SessionConfig, list[str]]:
    """Return the fork's resolved configuration and how it differs from the parent's."""
    stored = wiring.stored_config(store)
    if stored is None:
        raise SessionError(f"{folder}: the session was never started, so there is nothing to fork")
    raw = stored.model_dump()
    for dotted, value in overrides.items():
        _set_field(raw, dotted, value)
    # A session is where it lies, whatever was written when it was last opened.
    here = {"runs_dir": str(folder.parent), "storage": {**raw["storage"], "url": wiring.configured_storage(folder).url}}
    config = SessionConfig.parse({**raw, **here}, source="--set")
    config = wiring.resolve(config)
    changes = wiring.changes_since(store, config)
    _refuse(folder, changes, from_round)
    return config, changes


def _set_field(raw: dict[str, Any], dotted: str, value: Any) -> None:
    node: Any = raw
    *parents, last = dotted.split(".")
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise ConfigError(f"--set {dotted}: unknown field; `synalign config schema` lists the known ones")
    if dotted == "runs_dir":
        raise ConfigError("--set runs_dir: a fork lies beside its parent; move the folder afterwards")
    if dotted in _STORED_ALIKE:
        raise ConfigError(f"--set {dotted}: a fork is stored and encrypted as its parent is")
    node[last] = value


def _refuse(folder: Path, changes: Sequence[str], from_round: int) -> None:
    fixed = [change for change in changes if change.startswith(wiring.FIXED)]
    if fixed:
        raise SessionError(
            f"a fork of {folder.name} shares its real rows, their split into reference and hold-out, and their vectors, which "
            "depend on data, seed and encoder:\n  "
            + "\n  ".join(fixed)
            + "\nStart a new session with `synalign run` instead"
        )
    kernel = [change for change in changes if change.startswith(_KERNEL)]
    if kernel and from_round > 1:
        raise SessionError(
            f"the MMD² of the {from_round - 1} rounds that the fork shares with {folder.name} were measured with the kernel that "
            "this would change, so that later ones could not be compared with them:\n  " + "\n  ".join(kernel) + "\n"
            "Fork from round 1, which shares no distances"
        )


def _take_vectors(source: Path, target: Path, store: SessionStore) -> None:
    """Copy the vectors of the rows that the fork has; those that cannot be read are embedded again when it is opened."""
    encoder = store.meta("encoder")
    wanted = {
        "real": [row.id for row in store.real_rows()],
        "pool": [sample.id for sample in store.samples()],
    }
    for name, ids in wanted.items():
        saved = VectorStore.load(source / name, model_id=encoder) if encoder is not None and ids else None
        if saved is None or saved.ids[: len(ids)] != ids:
            continue
        saved.first(len(ids)).save(target / name)


async def _begin_thread(
    folder: Path, thread_id: str, config: SessionConfig, rounds: Sequence[Mapping[str, Any]]
) -> None:
    """Write the checkpoint that the last shared round ended with, under the fork's thread id and with no reason to stop.

    It is made from the store rather than copied: the old session's checkpoints may be pruned, and say why that one stopped.
    """
    from synalign_agent.graph import build_graph

    async def unopened(thread_id: str, context: Context) -> Any:
        raise AssertionError("writing a checkpoint opens no session")

    history = [
        RoundSummary(
            round=entry["round"],
            n_pool=entry["n_pool"],
            n_selected=entry["n_selected"],
            mmd2=entry["mmd2"]["aligned"],
            target=entry["mmd2"]["target"],
        )
        for entry in rounds
    ]
    values: State = {"round": rounds[-1]["round"], "cluster_ids": [], "history": history, "stop_reason": None}
    async with wiring.open_checkpointer(folder, config) as saver:
        graph = build_graph(unopened).compile(checkpointer=saver, name="synalign")
        await graph.aupdate_state({"configurable": {"thread_id": thread_id}}, values, as_node="align")
