"""The group-committing writer: what runs together, what fails alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentforge.errors.store import RecordExists, RunNotFound, StoreClosed
from agentforge.store.sqlite import SqliteDatabase
from agentforge.store.tables import projects
from agentforge.store.transaction import Transaction
from agentforge.store.writer import Writer


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    database = SqliteDatabase(tmp_path / "state.db")
    database.open()
    writer = Writer(database)
    yield writer
    await writer.close()
    database.close()


def insert(name: str, *, gathered: bool = False) -> Callable[[Transaction], str]:
    def operation(transaction: Transaction) -> str:
        row = {"project": name, "created_at": 0.0, "epoch": 1, "holder": "host", "renewed_at": 0.0}
        (transaction.insert if gathered else transaction.insert_now)(projects, [row])
        return name

    return operation


def names(transaction: Transaction) -> list[str]:
    transaction._cursor.execute("SELECT project FROM projects ORDER BY project")
    return [name for (name,) in transaction._cursor.fetchall()]


async def together(writer: Writer, operations: Sequence[Callable]) -> list[object]:
    """Run operations in one batch: the writer is held up until all of them wait."""
    gate = Event()
    held = writer.submit(lambda transaction: gate.wait(10))
    futures = [writer.submit(operation) for operation in operations]
    gate.set()
    await held
    return await asyncio.gather(*futures, return_exceptions=True)


async def test_an_operation_that_fails_after_it_has_written_is_undone_alone(writer: Writer) -> None:
    def half(transaction: Transaction) -> None:
        insert("half")(transaction)
        raise RunNotFound("no such run")

    first, failed, last = await together(writer, [insert("a"), half, insert("b", gathered=True)])
    assert (first, last) == ("a", "b")
    assert isinstance(failed, RunNotFound)
    assert await writer.submit(names) == ["a", "b"]


async def test_a_bug_in_one_operation_reaches_its_caller_only(writer: Writer) -> None:
    def bug(transaction: Transaction) -> None:
        raise ZeroDivisionError

    outcomes = await together(writer, [insert("a"), bug, insert("b")])
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert await writer.submit(names) == ["a", "b"]


async def test_a_closed_writer_takes_nothing_more(writer: Writer) -> None:
    await writer.close()
    with pytest.raises(StoreClosed):
        writer.submit(names)


async def test_any_batch_has_the_outcome_of_its_operations_one_by_one(tmp_path_factory) -> None:
    steps = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12)
    examples: list[list[tuple[str, bool]]] = []
    settings(max_examples=40, database=None, suppress_health_check=list(HealthCheck))(
        given(steps)(lambda found: examples.append(found))
    )()
    for number, example in enumerate(examples):
        database = SqliteDatabase(tmp_path_factory.mktemp("batch") / f"{number}.db")
        database.open()
        writer = Writer(database)
        outcomes = await together(writer, [insert(name, gathered=gathered) for name, gathered in example])
        seen: set[str] = set()
        for (name, _), outcome in zip(example, outcomes, strict=True):
            assert isinstance(outcome, RecordExists) if name in seen else outcome == name
            seen.add(name)
        assert await writer.submit(names) == sorted(seen)
        await writer.close()
        database.close()
