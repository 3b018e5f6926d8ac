"""On SQLite, the transactions of one process wait for each other in order, and none for luck."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from callcenter.sqlite import base
from callcenter.sqlite.fairlock import FairLock

# ---------------------------------------------------------------------- the lock


def _waiting(lock: FairLock, count: int) -> None:
    """Until so many wait for it."""
    step = threading.Event()
    while len(lock._waiting) < count:
        step.wait(0.001)


def test_it_is_had_in_the_order_in_which_it_was_asked_for() -> None:
    lock, order = FairLock(), []
    assert lock.acquire(0)

    def take(number: int) -> None:
        assert lock.acquire(30)
        order.append(number)
        lock.release()

    with ThreadPoolExecutor(5) as threads:
        for number in range(5):
            threads.submit(take, number)
            _waiting(lock, number + 1)
        lock.release()
    assert order == [0, 1, 2, 3, 4]
    assert lock.acquire(0), "nobody has it any more"


def test_who_asks_again_at_once_stands_behind_who_waits() -> None:
    lock, order = FairLock(), []
    assert lock.acquire(0)

    def take() -> None:
        assert lock.acquire(30)
        order.append("who waited")
        lock.release()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(take)
        _waiting(lock, 1)
        lock.release()
        assert lock.acquire(30)
        order.append("who had it")
        lock.release()
    assert order == ["who waited", "who had it"]


def test_who_has_waited_long_enough_goes_and_holds_up_nobody() -> None:
    lock = FairLock()
    assert lock.acquire(0)
    assert not lock.acquire(0.01)
    lock.release()
    assert lock.acquire(0)


def test_who_is_interrupted_while_waiting_leaves_the_lock_to_others() -> None:
    lock = FairLock()
    assert lock.acquire(0)

    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            lock.acquire(30)
    finally:
        signal.signal(signal.SIGALRM, former)
    lock.release()
    assert lock.acquire(0)


# ---------------------------------------------------------------------- the backend

ALIAS = "turns"


@pytest.fixture
def path(tmp_path: Path, django_db_blocker: Any) -> Iterator[Path]:
    """A database of its own, beside that of the tests."""
    path = tmp_path / "db.sqlite3"
    options = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL;",
    }
    one = {"ENGINE": "callcenter.sqlite", "NAME": str(path), "OPTIONS": options}
    connections.settings[ALIAS] = ConnectionHandler({"default": one}).settings["default"]
    with django_db_blocker.unblock():
        run("CREATE TABLE thing (name TEXT UNIQUE)")
        run("CREATE TABLE part (of TEXT REFERENCES thing (name) DEFERRABLE INITIALLY DEFERRED)")
        try:
            yield path
        finally:
            connections[ALIAS].close()
            del connections[ALIAS], connections.settings[ALIAS]


def run(sql: str) -> None:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(sql)


def add(name: str) -> None:
    run(f"INSERT INTO thing VALUES ('{name}')")


def names(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as seen:
        return [name for (name,) in seen.execute("SELECT name FROM thing ORDER BY rowid")]


def turn_of(path: Path) -> FairLock:
    return base._turns[str(path)]


def free(path: Path) -> bool:
    """Nobody has the turn."""
    if not turn_of(path).acquire(0):
        return False
    turn_of(path).release()
    return True


def in_thread(work: Callable[[], None]) -> Callable[[], None]:
    """With a connection of its own, closed behind it."""

    def done() -> None:
        try:
            work()
        finally:
            connections[ALIAS].close()

    return done


def test_a_transaction_begins_when_the_one_before_it_has_ended(path: Path) -> None:
    def second() -> None:
        with transaction.atomic(using=ALIAS):
            add("second")

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic(using=ALIAS):
            add("first")
            waits = threads.submit(in_thread(second))
            _waiting(turn_of(path), 1)
            assert not waits.done()
        waits.result(30)
    assert names(path) == ["first", "second"]
    assert free(path)


def test_many_threads_lose_nothing(path: Path) -> None:
    def write(number: int) -> None:
        for count in range(20):
            with transaction.atomic(using=ALIAS):
                add(f"{number}.{count}")

    with ThreadPoolExecutor(5) as threads:
        for each in [threads.submit(in_thread(partial(write, n))) for n in range(5)]:
            each.result(60)
    assert len(names(path)) == 100
    assert free(path)


def test_what_goes_wrong_gives_the_turn_back(path: Path) -> None:
    add("there")
    with pytest.raises(IntegrityError), transaction.atomic(using=ALIAS):
        add("there")
    assert free(path)
    with pytest.raises(IntegrityError), transaction.atomic(using=ALIAS):
        run("INSERT INTO part VALUES ('of nothing')")  # found out when it is committed
    assert free(path)
    with transaction.atomic(using=ALIAS), transaction.atomic(using=ALIAS):
        add("inner")
    assert free(path)
    assert names(path) == ["there", "inner"]


def test_a_commit_that_fails_as_none_should_gives_the_turn_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "_commit", fails)
        with pytest.raises(MemoryError), transaction.atomic(using=ALIAS):
            add("perhaps")
    assert free(path)
    with transaction.atomic(using=ALIAS):
        add("then")
    assert names(path)[-1] == "then"


def test_a_connection_that_is_closed_in_the_middle_gives_the_turn_back(path: Path) -> None:
    with suppress(DatabaseError), transaction.atomic(using=ALIAS):
        add("lost")
        connections[ALIAS].close()
        assert free(path)
    assert names(path) == []


def test_who_cannot_begin_is_told_so_and_has_no_turn(path: Path) -> None:
    run("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"), transaction.atomic(using=ALIAS):
            raise AssertionError("it has begun")
        assert free(path)
        another.execute("ROLLBACK")
    with transaction.atomic(using=ALIAS):
        add("now")
    assert names(path) == ["now"]


def test_who_waits_too_long_for_another_thread_is_told_as_by_sqlite(path: Path) -> None:
    connections[ALIAS].settings_dict["OPTIONS"]["timeout"] = 0.01

    def second() -> None:
        with transaction.atomic(using=ALIAS):
            add("second")

    with ThreadPoolExecutor(1) as threads, transaction.atomic(using=ALIAS):
        add("first")
        with pytest.raises(OperationalError, match="database is locked"):
            threads.submit(in_thread(second)).result(30)
    assert names(path) == ["first"]
    assert free(path)
