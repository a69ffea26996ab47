"""`python3 -m unittest` in this folder, once `generate` has been run. Through a real socket, as a replicator calls it."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import grpc

from commands import Balance, Invalid, Journal, Open, Total, Transfer, Transfers, parse_command, parse_query
from raftlog.v1 import state_machine_pb2 as messages
from raftlog.v1 import state_machine_pb2_grpc
from store import Broken, Operation, Position, Store

CLUSTER = 2**64 - 1
HELLO = messages.ApplyRequest(hello=messages.ApplyHello(protocol_version=1, cluster_id=CLUSTER, node=1))
PATIENCE = 30


def operations(first, *texts):
    some = [messages.AppliedOperation(index=index, term=1, data=text) for index, text in enumerate(texts, first)]
    return messages.ApplyRequest(operations=messages.ApplyOperations(operations=some))


class Commands(unittest.TestCase):
    def test_what_is_understood(self):
        for text, expected in [
            (b"open alice 100", Open("alice", 100)),
            (b"transfer c-1.7 alice bob 5", Transfer("c-1.7", "alice", "bob", 5)),
        ]:
            self.assertEqual(parse_command(text), expected)
        for text, expected in [
            (b"balance alice", Balance("alice")),
            (b"total", Total()),
            (b"transfers", Transfers()),
            (b"journal 7", Journal(7)),
        ]:
            self.assertEqual(parse_query(text), expected)

    def test_what_is_not(self):
        for text in [
            b"",
            b"open",
            b"open alice",
            b"open alice -1",
            b"open alice 1.5",
            b"open alice 1e3",
            b"open alice 1234567890123456789",
            b"open  alice 1",
            b"open alice 1\n",
            b"open al'ice 1",
            b"open " + b"a" * 65 + b" 1",
            "open alice ٣".encode(),
            b"\xff\x00",
            b"transfer alice bob 5",
            b"transfer 1 alice bob 5 6",
            b"steal alice",
        ]:
            with self.assertRaises(Invalid, msg=text):
                parse_command(text)
            with self.assertRaises(Invalid, msg=text):
                parse_query(text)


class InAFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class Stores(InAFolder):
    def open(self, name="data"):
        store = Store(self.folder / name)
        self.addCleanup(store.close)
        return store

    def apply(self, store, first, *texts):
        return store.apply(CLUSTER, [Operation(index, text) for index, text in enumerate(texts, first)])

    def filled(self):
        store = self.open()
        self.apply(store, 1, b"open alice 100", b"open bob 0", b"transfer a alice bob 30", b"transfer b bob alice 10")
        return store

    def balances(self, store):
        return [store.query(Balance(account))[0] for account in ("alice", "bob")]

    def test_money_moves_and_none_is_made(self):
        store = self.open()
        results = self.apply(
            store,
            1,
            b"open alice 100",
            b"open alice 5",
            b"open bob 0",
            b"transfer a alice bob 30",
            b"transfer b alice bob 71",
            b"transfer c alice carol 1",
            b"transfer d carol alice 1",
            b"transfer e bob bob 30",
            b"open rich 999999999999999999",
            b"nonsense",
        )
        self.assertEqual(
            results[:9],
            [
                "done",
                "refused: there is an account alice already",
                "done",
                "done",
                "refused: alice has 70",
                "refused: there is no account carol",
                "refused: there is no account carol",
                "done",
                "refused: there is not that much money",
            ],
        )
        self.assertTrue(results[9].startswith("invalid: "))
        self.assertEqual(self.balances(store), ["70", "30"])
        self.assertEqual(store.query(Total()), ("100", Position(10, CLUSTER)))
        self.assertEqual(store.query(Transfers())[0], "2")
        self.assertEqual(store.query(Journal(5))[0], "8 e bob bob 30\n")

    def test_what_is_applied_is_there_after_a_new_start_and_nobody_else_opens_it(self):
        store = self.filled()
        with self.assertRaises(OSError):
            Store(self.folder / "data")
        store.close()
        again = self.open()
        self.assertEqual(again.position(), Position(4, CLUSTER))
        self.assertEqual(self.balances(again), ["80", "20"])

    def test_where_one_operation_fails_none_is_applied(self):
        store = self.filled()
        store._writer.execute("CREATE TRIGGER full BEFORE INSERT ON transfers BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        with self.assertRaisesRegex(Exception, "disk full"):
            self.apply(store, 5, b"open carol 1", b"transfer c alice bob 1")
        self.assertEqual(store.position(), Position(4, CLUSTER))
        self.assertEqual(store.query(Total())[0], "100")

    def test_a_snapshot_is_of_when_it_was_taken_and_brings_all_back(self):
        store = self.filled()
        position, pieces = store.snapshot()
        self.apply(store, 5, b"transfer c alice bob 80")
        copy = b"".join(pieces)
        self.assertEqual(position, Position(4, CLUSTER))
        other = self.open("other")
        self.apply(other, 1, b"open zoe 7")
        other.restore(Position(4, 5), iter([copy[:10], b"", copy[10:]]))
        self.assertEqual(self.balances(other), ["80", "20"])
        self.assertEqual(other.position(), Position(4, 5))
        again = b"".join(other.snapshot()[1])
        self.assertEqual(again, copy, "a state has one form")
        self.assertEqual(self.apply(other, 5, b"open more 999999999999999900"), ["done"], "the total came along")
        self.assertEqual(self.apply(other, 6, b"open more2 1"), ["refused: there is not that much money"])

    def test_a_broken_snapshot_changes_nothing(self):
        store = self.filled()
        good = b'["accounts","zoe",7]\n'
        for bad in [
            b'["accounts","zoe",7]',
            b'["accounts","zoe"]\n',
            b'["accounts","zoe","7"]\n',
            b'["accounts","zoe",-7]\n',
            b'["accounts","zoe",true]\n',
            b'["accounts","zoe",' + b"9" * 19 + b"]\n",
            b'["accounts","z\\ud800",7]\n',
            b'["position",1,2,3]\n',
            b'[["accounts"],"zoe",7]\n',
            b'{"accounts":1}\n',
            b"[" * 900 + b"\n",
            b"7\n",
            b"\n",
            b"\xff\n",
            b"x" * 5000,
            random.Random(1).randbytes(5000),
        ]:
            with self.assertRaises(Broken, msg=bad):
                store.restore(Position(9, 9), iter([good, bad]))
            self.assertEqual(store.position(), Position(4, CLUSTER))
            self.assertEqual(self.balances(store), ["80", "20"])


class Services(InAFolder):
    """The program itself."""

    def setUp(self):
        super().setUp()
        self.socket = f"unix://{self.folder}/socket"
        self.start()

    def start(self):
        self.program = self.run_program(self.folder)
        self.addCleanup(self.program.communicate)
        self.addCleanup(self.program.kill)
        self.assertIn("listens", self.program.stderr.readline())
        # With connections of its own: those of an earlier program at the same socket may not have noticed yet that it was killed.
        channel = grpc.insecure_channel(self.socket, [("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        self.machine = state_machine_pb2_grpc.StateMachineStub(channel)

    def run_program(self, folder, listen=None):
        environment = {
            **os.environ,
            "STATE_MACHINE_LISTEN": listen or self.socket,
            "STATE_MACHINE_DATA_DIR": str(folder / "data"),
        }
        script = Path(__file__).with_name("ledger.py")
        return subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True)

    def apply(self, *requests):
        """All answers, of a stream that ends behind these."""
        return list(self.machine.Apply(iter(requests), timeout=PATIENCE))

    def restore(self, header, *pieces):
        requests = [messages.RestoreRequest(header=header), *(messages.RestoreRequest(data=piece) for piece in pieces)]
        return self.machine.Restore(iter(requests), timeout=PATIENCE)

    def query(self, text):
        return self.machine.Query(messages.StateMachineQueryRequest(query=text), timeout=PATIENCE)

    def refused(self, code):
        test = self

        class Refused:
            def __enter__(self):
                pass

            def __exit__(self, kind, error, _):
                test.assertIsNotNone(error, "it was not refused")
                test.assertEqual(error.code(), code, error)
                return True

        return Refused()

    def test_a_story(self):
        position, told = self.apply(HELLO, operations(1, b"open alice 100", b"open bob 0", b"transfer a alice bob 1"))
        self.assertEqual((position.position.protocol_version, position.position.applied_index), (1, 0))
        self.assertEqual((told.results.applied_index, list(told.results.results)), (3, [b"done"] * 3))
        self.program.kill()
        self.program.wait()
        self.start()
        (position,) = self.apply(HELLO)
        self.assertEqual((position.position.applied_index, position.position.cluster_id), (3, CLUSTER))
        answer = self.query(b"balance bob")
        self.assertEqual((answer.result, answer.applied_index), (b"1", 3))
        first, *pieces = self.machine.Snapshot(messages.StateMachineSnapshotRequest(), timeout=PATIENCE)
        self.assertEqual((first.applied_index, first.data), (3, b""))
        copy = b"".join(piece.data for piece in pieces)
        self.apply(HELLO, operations(4, b"transfer b alice bob 99"))
        header = messages.RestoreHeader(applied_index=9, cluster_id=7, size=len(copy))
        for pieces in [[copy[:-1]], [copy, b"x"], []]:
            with self.refused(grpc.StatusCode.INVALID_ARGUMENT):
                self.restore(header, *pieces)
            self.assertEqual(self.query(b"balance bob").result, b"100")
        self.restore(header, copy[:7], copy[7:])
        answer = self.query(b"balance bob")
        self.assertEqual((answer.result, answer.applied_index), (b"1", 9))
        self.program.send_signal(signal.SIGTERM)
        self.assertEqual(self.program.wait(PATIENCE), 0)

    def test_it_ends_while_a_stream_is_open(self):
        stream, close = self.open_stream()
        self.program.send_signal(signal.SIGTERM)
        self.assertEqual(self.program.wait(PATIENCE), 0)
        with self.assertRaises(grpc.RpcError):
            next(stream)
        close.set()

    def open_stream(self):
        close = threading.Event()

        def requests():
            yield HELLO
            close.wait(PATIENCE)
            yield operations(1, b"open late 1")

        stream = self.machine.Apply(requests(), timeout=PATIENCE)
        next(stream)
        return stream, close

    def test_a_new_stream_takes_the_place_of_older_ones(self):
        # More than calls are served at a time: those that were replaced take no place any more.
        older = [self.open_stream() for _ in range(40)]
        self.apply(HELLO, operations(1, b"open alice 1"))
        for stream, close in older:
            close.set()
            with self.assertRaises(grpc.RpcError):
                next(stream)
        self.assertEqual(self.query(b"total").result, b"1")

    def test_results_come_in_messages_of_a_bounded_size(self):
        _, *told = self.apply(HELLO, operations(1, *[b"?"] * 2500))
        self.assertEqual([message.results.applied_index for message in told], [1000, 2000, 2500])

    def test_what_breaks_the_protocol_is_refused_and_the_program_goes_on(self):
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        hello = messages.ApplyHello(protocol_version=1)
        old = messages.ApplyHello(cluster_id=1)
        for requests in [
            [],
            [messages.ApplyRequest()],
            [messages.ApplyRequest(hello=hello)],
            [messages.ApplyRequest(hello=old)],
            [operations(1, b"open alice 1")],
            [HELLO, HELLO],
            [HELLO, messages.ApplyRequest()],
            [HELLO, operations(2, b"open alice 1")],
            [HELLO, operations(0, b"open alice 1")],
            [HELLO, operations(2**64 - 1, b"open alice 1")],
        ]:
            with self.refused(invalid):
                self.apply(*requests)
        for header in [
            messages.RestoreHeader(),
            messages.RestoreHeader(applied_index=1),
            messages.RestoreHeader(applied_index=2**64 - 1, cluster_id=1),
            messages.RestoreHeader(applied_index=1, cluster_id=1, size=2**64 - 1),
        ]:
            with self.refused(invalid):
                self.restore(header)
        for query in [b"", b"\xff", b"balance", b"steal alice"]:
            with self.refused(invalid):
                self.query(query)
        with self.refused(grpc.StatusCode.OUT_OF_RANGE):
            self.query(b"balance alice")
        self.assertEqual(self.query(b"total").result, b"0")

    def test_it_says_why_it_does_not_start(self):
        for folder, listen, why in [
            (self.folder, None, "another program"),
            (self.folder / "other", "nowhere", "no place to listen"),
            (self.folder / "other", "unix:///not/there", "cannot listen"),
        ]:
            program = self.run_program(folder, listen)
            _, said = program.communicate(timeout=PATIENCE)
            self.assertEqual(program.returncode, 1)
            self.assertIn(why, said)


if __name__ == "__main__":
    unittest.main()
