"""The state: accounts and the transfers between them in a sqlite file, with the last operation that is in it."""

import contextlib
import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Sequence, Tuple

from commands import NAME, Balance, Command, Invalid, Journal, Open, Query, Total, Transfer, parse_command

# Money in all accounts together: sqlite adds such numbers up without an overflow.
TOTAL_MAX = 10**18
# What sqlite's integers hold.
INTEGER_MAX = 2**63 - 1
# Transfers in one answer: it has 64 KiB at most.
JOURNAL_ROWS = 250
# A snapshot's line is shorter.
LINE_BYTES_MAX = 1024
PIECE_BYTES = 256 * 1024

TABLES = """
    CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS transfers (operation INTEGER PRIMARY KEY, id TEXT NOT NULL, payer TEXT NOT NULL,
        payee TEXT NOT NULL, amount INTEGER NOT NULL);
    -- One row. Numbers of clusters go beyond sqlite's integers.
    CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), applied_index INTEGER NOT NULL,
        cluster_id TEXT NOT NULL, total INTEGER NOT NULL);
    INSERT OR IGNORE INTO position VALUES (1, 0, '0', 0);
"""


class Position(NamedTuple):
    """The last operation that is in the state, and its cluster."""

    applied_index: int
    cluster_id: int


class Operation(NamedTuple):
    index: int
    data: bytes


class Broken(Exception):
    """What is to be restored is no snapshot of a ledger."""


class NotThere(Exception):
    """What is asked for."""


class Store:
    """Everything that changes it is called by one thread at a time; reading has connections of its own."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        # Two programs with one state would both be wrong. Let go of by the system, however this one ends.
        self._lock = open(folder / "lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise OSError("another program has it open") from None
        self._path = folder / "ledger.sqlite"
        self._writer = self._connect()
        self._writer.executescript(TABLES)
        _sync_folder(folder)

    def close(self) -> None:
        self._writer.close()
        self._lock.close()

    def position(self) -> Position:
        return _position(self._writer)

    def apply(self, cluster_id: int, operations: Sequence[Operation]) -> "list[str]":
        """All of them and where the state stands then, in one transaction: after a crash all is there, or nothing."""
        with _transaction(self._writer):
            results = [self._apply(operation) for operation in operations]
            self._writer.execute(
                "UPDATE position SET applied_index = ?, cluster_id = ?", (operations[-1].index, str(cluster_id))
            )
        return results

    def _apply(self, operation: Operation) -> str:
        try:
            command = parse_command(operation.data)
        except Invalid as why:
            return f"invalid: {why}"
        # What makes no sense is turned down by its result, on every replica alike.
        refused = self._refused(command)
        if refused is not None:
            return f"refused: {refused}"
        if isinstance(command, Open):
            self._writer.execute("INSERT INTO accounts VALUES (?, ?)", (command.account, command.amount))
            self._writer.execute("UPDATE position SET total = total + ?", (command.amount,))
        else:
            move = "UPDATE accounts SET balance = balance + ? WHERE name = ?"
            self._writer.execute(move, (-command.amount, command.payer))
            self._writer.execute(move, (command.amount, command.payee))
            self._writer.execute("INSERT INTO transfers VALUES (?, ?, ?, ?, ?)", (operation.index, *_row(command)))
        return "done"

    def _refused(self, command: Command) -> "str | None":
        if isinstance(command, Open):
            (total,) = self._writer.execute("SELECT total FROM position").fetchone()
            if self._balance(command.account) is not None:
                return f"there is an account {command.account} already"
            return "there is not that much money" if total + command.amount > TOTAL_MAX else None
        if self._balance(command.payee) is None:
            return f"there is no account {command.payee}"
        balance = self._balance(command.payer)
        if balance is None:
            return f"there is no account {command.payer}"
        return f"{command.payer} has {balance}" if balance < command.amount else None

    def _balance(self, account: str) -> "int | None":
        return _balance(self._writer, account)

    def query(self, query: Query) -> "Tuple[str, Position]":
        """The answer, and what it is an answer of."""
        with self._reading() as reader:
            return _answer(reader, query), _position(reader)

    def snapshot(self) -> "Tuple[Position, Iterator[bytes]]":
        """Where the state stands, and a copy of it as it is now: a read transaction sees nothing of what is applied later."""
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(self._reading())
            position = _position(reader)
            # Open until all was read, or nobody reads any more.
            return position, _pieces(reader, stack.pop_all())

    def restore(self, position: Position, snapshot: Iterable[bytes]) -> None:
        """Replaces everything in one transaction: whatever breaks off leaves the state as it was, and so does an exception of `snapshot`."""
        with _transaction(self._writer):
            self._writer.execute("DELETE FROM accounts")
            self._writer.execute("DELETE FROM transfers")
            for line in _lines(snapshot):
                table, *row = _parsed(line)
                marks = "?, ?" if table == "accounts" else "?, ?, ?, ?, ?"
                self._writer.execute(f"INSERT INTO {table} VALUES ({marks})", row)
            self._writer.execute(
                "UPDATE position SET applied_index = ?, cluster_id = ?, total = (SELECT COALESCE(SUM(balance), 0) FROM accounts)",
                (position.applied_index, str(position.cluster_id)),
            )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(self._connect()) as reader:
            reader.execute("BEGIN")
            yield reader

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(str(self._path), isolation_level=None, check_same_thread=False)
        # Readers and the writer don't wait for each other, and what is committed survives a crash of the machine.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors end the transaction by themselves.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _position(connection: sqlite3.Connection) -> Position:
    index, cluster = connection.execute("SELECT applied_index, cluster_id FROM position").fetchone()
    return Position(index, int(cluster))


def _balance(connection: sqlite3.Connection, account: str) -> "int | None":
    row = connection.execute("SELECT balance FROM accounts WHERE name = ?", (account,)).fetchone()
    return None if row is None else row[0]


def _answer(reader: sqlite3.Connection, query: Query) -> str:
    if isinstance(query, Balance):
        balance = _balance(reader, query.account)
        if balance is None:
            raise NotThere(f"there is no account {query.account}")
        return str(balance)
    if isinstance(query, Total):
        # Added up anew: that it is what was put in is what the ledger is for.
        return str(reader.execute("SELECT COALESCE(SUM(balance), 0) FROM accounts").fetchone()[0])
    if isinstance(query, Journal):
        rows = reader.execute(
            "SELECT * FROM transfers WHERE operation >= ? ORDER BY operation LIMIT ?", (query.first, JOURNAL_ROWS)
        )
        return "".join(" ".join(map(str, row)) + "\n" for row in rows)
    return str(reader.execute("SELECT COUNT(*) FROM transfers").fetchone()[0])


def _row(transfer: Transfer) -> "Tuple[str, str, str, int]":
    return transfer.id, transfer.payer, transfer.payee, transfer.amount


def _pieces(reader: sqlite3.Connection, until_read: contextlib.ExitStack) -> Iterator[bytes]:
    """A JSON array a line: the table, then what is in the row."""
    with until_read:
        piece = bytearray()
        for table, key in (("accounts", "name"), ("transfers", "operation")):
            for row in reader.execute(f"SELECT * FROM {table} ORDER BY {key}"):
                piece += json.dumps([table, *row], separators=(",", ":")).encode() + b"\n"
                if len(piece) >= PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        yield bytes(piece)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > LINE_BYTES_MAX:
            raise Broken("a line is too long")
    if rest:
        raise Broken("the last line has no end")


def _parsed(line: bytes) -> list:
    """The table and the row, of the right types."""
    try:
        row = json.loads(line)
        kinds = {"accounts": [str, int], "transfers": [int, str, str, str, int]}[row[0]]
        fits = [type(value) for value in row[1:]] == kinds and all(map(_fits, row[1:]))
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise Broken("a line is no row of a ledger")
    return row


def _fits(value: "str | int") -> bool:
    return NAME.fullmatch(value) is not None if isinstance(value, str) else 0 <= value <= INTEGER_MAX


def _sync_folder(folder: Path) -> None:
    """So that the file itself is there after a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
