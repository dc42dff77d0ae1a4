"""The writes, each as a function of a transaction: first every check, then the writing.

The writer may run an operation twice (once together with others and, if one of those fails, once alone), so none of
them changes its arguments.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Table, bindparam, delete, func, literal_column, select, update

from agentforge.errors.store import AgentVersionNotFound, LeaseLost, RecordExists, RunNotFound
from agentforge.store.records import UNFINISHED, Lease, ProjectId, RunId
from agentforge.store.rows import Row
from agentforge.store.tables import (
    agent_versions,
    attempts,
    effects,
    events,
    projects,
    responses,
    run_labels,
    runs,
    thread_messages,
)
from agentforge.store.transaction import HeldRun, Transaction

__all__ = [
    "acquire_lease",
    "append_effect",
    "append_events",
    "append_messages",
    "cache_response",
    "claim_run",
    "claim_runs",
    "clear_responses",
    "create_run",
    "delete_run",
    "delete_thread",
    "finish_attempt",
    "finish_run",
    "import_run",
    "prune_responses",
    "put_agent_version",
    "remove_messages",
    "renew_lease",
    "start_attempt",
    "update_run",
    "void_effects",
]

_LEASE = select(projects.c.epoch).where(projects.c.project == bindparam("project")).with_for_update(of=projects)
_AGENT_VERSION = select(agent_versions.c.id).where(agent_versions.c.id == bindparam("id"))
_SUBMITTED = select(runs.c.run_id).where(
    runs.c.project == bindparam("project"), runs.c.submit_key == bindparam("submit_key")
)
_KNOWN_RUN = select(runs.c.number).where(runs.c.run_id == bindparam("run_id"))
_UNFINISHED_RUNS = (
    (runs.c.project == bindparam("project"))
    & (runs.c.lease_epoch < bindparam("epoch"))
    & runs.c.status.in_([literal_column(f"'{status}'") for status in sorted(UNFINISHED)])
)
_EARLIER_RUNS = select(runs.c.run_id).where(_UNFINISHED_RUNS).order_by(runs.c.number)
_CLAIM_RUNS = update(runs).where(_UNFINISHED_RUNS).values(lease_epoch=bindparam("epoch"))
_VOID_EFFECTS = (
    update(effects)
    .where(
        effects.c.run_id == bindparam("run"),
        effects.c.position > bindparam("above"),
        effects.c.voided == literal_column("0"),
    )
    .values(voided=literal_column("1"))
)
_VOID_EFFECT = _VOID_EFFECTS.where(effects.c.position == bindparam("only"))
_DELETE_RUN = delete(runs).where(runs.c.run_id == bindparam("run_id"))
_DELETE_LABELS = delete(run_labels).where(run_labels.c.run_id == bindparam("run_id"))
_LAST_MESSAGE = select(func.max(thread_messages.c.seq)).where(
    thread_messages.c.project == bindparam("project"), thread_messages.c.thread == bindparam("thread")
)
_REMOVE_MESSAGES = delete(thread_messages).where(thread_messages.c.run_id == bindparam("run_id"))
_DELETE_THREAD = delete(thread_messages).where(
    thread_messages.c.project == bindparam("project"), thread_messages.c.thread == bindparam("thread")
)

_EXPIRED_RESPONSES = delete(responses).where(
    responses.c.project == bindparam("project"), responses.c.expires_at <= bindparam("now")
)
_ALL_RESPONSES = delete(responses).where(responses.c.project == bindparam("project"))


def acquire_lease(transaction: Transaction, project: ProjectId, holder: str, at: float) -> Lease:
    """Raise the project's epoch by one."""
    found = transaction.fetch(_LEASE, {"project": project})
    lease = Lease(project, (found[0] if found else 0) + 1, holder, at)
    row: Row = {"epoch": lease.epoch, "holder": holder, "renewed_at": at}
    if found is None:
        transaction.insert_now(projects, [{"project": project, "created_at": at, **row}])
    else:
        transaction.update(projects, row, project=project)
    transaction.forget()
    return lease


def renew_lease(transaction: Transaction, lease: Lease, at: float) -> None:
    """Set when the lease was renewed, if it still is the project's."""
    if not transaction.update(projects, {"renewed_at": at}, project=lease.project, epoch=lease.epoch):
        raise LeaseLost(f"The project `{lease.project}` is not at lease epoch `{lease.epoch}` any more.")


def put_agent_version(transaction: Transaction, row: Row) -> None:
    """Insert the version unless it is there."""
    if transaction.fetch(_AGENT_VERSION, row) is None:
        transaction.insert_now(agent_versions, [row])


def create_run(transaction: Transaction, project: ProjectId, epoch: int, row: Row, labels: Sequence[Row]) -> RunId:
    """Insert the run and return its id, or that of the run submitted earlier with its key."""
    transaction.require_lease(project, epoch)
    if row["submit_key"] is not None and (found := transaction.fetch(_SUBMITTED, row)):
        return RunId(found[0])
    if transaction.fetch(_AGENT_VERSION, {"id": row["agent_version"]}) is None:
        raise AgentVersionNotFound(f"There is no agent version `{row['agent_version']!s}`.")
    transaction.insert_now(runs, [row])
    transaction.insert_now(run_labels, labels)
    return RunId(str(row["run_id"]))


def import_run(
    transaction: Transaction,
    project: ProjectId,
    epoch: int,
    row: Row,
    labels: Sequence[Row],
    version: Row,
    parts: Mapping[Table, Sequence[Row]],
) -> RunId:
    """Insert the run with its agent version and parts; return its id, or that of the run submitted with its key."""
    transaction.require_lease(project, epoch)
    if row["submit_key"] is not None and (found := transaction.fetch(_SUBMITTED, row)):
        return RunId(found[0])
    if transaction.fetch(_KNOWN_RUN, row):
        raise RecordExists(f"There is a run `{row['run_id']!s}` already.")
    put_agent_version(transaction, version)
    transaction.insert_now(runs, [row])
    transaction.insert_now(run_labels, labels)
    for table, rows in parts.items():
        transaction.insert_now(table, rows)
    return RunId(str(row["run_id"]))


def claim_runs(transaction: Transaction, project: ProjectId, epoch: int) -> list[RunId]:
    """Give the project's unfinished runs its epoch; return which these are, oldest first."""
    transaction.require_lease(project, epoch)
    where: Row = {"project": project, "epoch": epoch}
    claimed = [RunId(found[0]) for found in transaction.fetch_all(_EARLIER_RUNS, where)]
    if claimed:
        transaction.execute(_CLAIM_RUNS, where)
        transaction.forget()
    return claimed


def claim_run(transaction: Transaction, run_id: RunId, epoch: int) -> None:
    """Give the run the project's epoch."""
    held = transaction.held_run(run_id)
    transaction.require_lease(held.project, epoch)
    if held.run_epoch != epoch:
        transaction.update(runs, {"lease_epoch": epoch}, run_id=run_id)
        transaction.forget()


def update_run(
    transaction: Transaction, run_id: RunId, epoch: int, changes: Row, labels: Sequence[Row] | None
) -> HeldRun:
    """Set columns of the run, and its labels unless they are `None`."""
    held = transaction.require_run(run_id, epoch)
    if changes:
        transaction.update(runs, changes, run_id=run_id)
    if labels is not None:
        transaction.execute(_DELETE_LABELS, {"run_id": run_id})
        transaction.insert_now(run_labels, labels)
    return held


def start_attempt(transaction: Transaction, run_id: RunId, epoch: int, row: Row) -> None:
    """Insert the attempt."""
    transaction.require_run(run_id, epoch)
    transaction.insert_now(attempts, [row])


def finish_attempt(transaction: Transaction, run_id: RunId, number: int, epoch: int, changes: Row) -> None:
    """Set columns of the attempt."""
    transaction.require_run(run_id, epoch)
    if not transaction.update(attempts, changes, run_id=run_id, number=number):
        raise RunNotFound(f"The run `{run_id}` has no attempt `{number}`.")


def append_events(transaction: Transaction, run_id: RunId, epoch: int, rows: Sequence[Row]) -> None:
    """Append the events."""
    transaction.require_run(run_id, epoch)
    transaction.insert(events, rows)


def append_effect(transaction: Transaction, run_id: RunId, epoch: int, row: Row, rows: Sequence[Row]) -> None:
    """Append the effect and its events."""
    transaction.require_run(run_id, epoch)
    transaction.insert(effects, [row])
    transaction.insert(events, rows)


def void_effects(
    transaction: Transaction,
    run_id: RunId,
    epoch: int,
    above: int,
    only: Sequence[int] | None,
    changes: Row,
    labels: Sequence[Row] | None,
    rows: Sequence[Row],
) -> int:
    """Void effects, set columns of the run and append its events; return how many effects became void."""
    transaction.require_run(run_id, epoch)
    # Effects of the same transaction may only be gathered yet.
    transaction.flush()
    place: Row = {"run": run_id, "above": above}
    if only is None:
        voided = transaction.execute(_VOID_EFFECTS, place)
    else:
        voided = sum(transaction.execute(_VOID_EFFECT, {**place, "only": position}) for position in only)
    update_run(transaction, run_id, epoch, changes, labels)
    transaction.insert(events, rows)
    return voided


def finish_run(
    transaction: Transaction,
    run_id: RunId,
    epoch: int,
    changes: Row,
    labels: Sequence[Row] | None,
    rows: Sequence[Row],
    messages: Sequence[Row],
) -> None:
    """Set columns of the run and append its last events and its thread's messages."""
    held = transaction.require_run(run_id, epoch)
    thread = _thread(held, run_id) if messages else ""
    update_run(transaction, run_id, epoch, changes, labels)
    transaction.insert(events, rows)
    if messages:
        _append(transaction, held.project, thread, messages)


def append_messages(transaction: Transaction, run_id: RunId, epoch: int, messages: Sequence[Row]) -> tuple[str, int]:
    """Append the messages to the run's thread; return its name and the number of the first one."""
    held = transaction.require_run(run_id, epoch)
    thread = _thread(held, run_id)
    return thread, _append(transaction, held.project, thread, messages)


def remove_messages(transaction: Transaction, run_id: RunId, epoch: int) -> int:
    """Delete the messages that the run added and return how many there were."""
    transaction.require_run(run_id, epoch)
    return transaction.execute(_REMOVE_MESSAGES, {"run_id": run_id})


def _thread(held: HeldRun, run_id: RunId) -> str:
    if held.thread is None:
        raise ValueError(f"The run `{run_id}` has no thread to add messages to.")
    return held.thread


def _append(transaction: Transaction, project: ProjectId, thread: str, messages: Sequence[Row]) -> int:
    found = transaction.fetch(_LAST_MESSAGE, {"project": project, "thread": thread})
    first = ((found and found[0]) or 0) + 1
    place: Row = {"project": project, "thread": thread}
    rows = [{**row, **place, "seq": seq} for seq, row in enumerate(messages, first)]
    transaction.insert_now(thread_messages, rows)
    return first


def delete_run(transaction: Transaction, run_id: RunId, epoch: int) -> None:
    """Delete the run; the database deletes its parts."""
    held = transaction.held_run(run_id)
    transaction.require_lease(held.project, epoch)
    transaction.execute(_DELETE_RUN, {"run_id": run_id})
    transaction.forget()


def delete_thread(transaction: Transaction, project: ProjectId, thread: str, epoch: int) -> int:
    """Delete the thread's messages and return how many there were."""
    transaction.require_lease(project, epoch)
    return transaction.execute(_DELETE_THREAD, {"project": project, "thread": thread})


def cache_response(transaction: Transaction, row: Row) -> None:
    """Keep a response in the place of an earlier one."""
    place: Row = {"project": row["project"], "key": row["key"]}
    values = {column: value for column, value in row.items() if column not in place}
    if not transaction.update(responses, values, **place):
        transaction.insert_now(responses, [row])


def prune_responses(transaction: Transaction, project: ProjectId, now: float) -> int:
    """Delete what has expired and return how many there were."""
    return transaction.execute(_EXPIRED_RESPONSES, {"project": project, "now": now})


def clear_responses(transaction: Transaction, project: ProjectId) -> int:
    """Delete all responses and return how many there were."""
    return transaction.execute(_ALL_RESPONSES, {"project": project})
