"""The service raftlog.v1.StateMachine on top of a store: nothing in here knows of money, so take it along."""

import logging
import sqlite3
import threading
from typing import Iterator

import grpc

from commands import Invalid, parse_query
from raftlog.v1 import state_machine_pb2 as messages
from raftlog.v1 import state_machine_pb2_grpc
from store import INTEGER_MAX, Broken, NotThere, Operation, Position, Store

PROTOCOL_VERSION = 1
# Results in one message, which must not get longer than 8 MiB.
RESULTS_MAX = 1000


class StateMachine(state_machine_pb2_grpc.StateMachineServicer):
    def __init__(self, store: Store):
        self._store = store
        # Whoever holds it may change the state.
        self._changing = threading.Lock()
        # The Apply or Restore that is served now. A new one takes the place of an older one, whose other end may be long gone.
        self._turn = None
        self._turns = threading.Lock()

    def close(self) -> None:
        """After what is being changed."""
        with self._changing:
            self._store.close()

    def Apply(self, requests, context) -> Iterator[messages.ApplyResponse]:
        hello = _hello(requests, context)
        self._take_turn(context)
        with self._changing:
            position = self._store.position()
        yield messages.ApplyResponse(
            position=messages.ApplyPosition(
                protocol_version=PROTOCOL_VERSION,
                applied_index=position.applied_index,
                cluster_id=position.cluster_id,
            )
        )
        applied = position.applied_index
        for request in requests:
            if request.WhichOneof("message") != "operations":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "operations follow the hello on Apply, and nothing else")
            operations = _following(applied, request.operations, context)
            if not operations:
                continue
            try:
                with self._changing:
                    self._keep_turn(context)
                    results = self._store.apply(hello.cluster_id, operations)
            except sqlite3.Error as why:
                # Nothing of it was applied: a full disk, say. The replicator comes back with it, and tells people meanwhile.
                logging.error("operation %d cannot be applied: %s", operations[0].index, why)
                yield messages.ApplyResponse(failed=messages.ApplyFailed(index=operations[0].index, message=_line(why)))
                return
            yield from _results(applied, results)
            applied = operations[-1].index

    def Snapshot(self, request, context) -> Iterator[messages.StateMachineSnapshotResponse]:
        with _told(context):
            position, pieces = self._store.snapshot()
            yield messages.StateMachineSnapshotResponse(applied_index=position.applied_index)
            for piece in pieces:
                yield messages.StateMachineSnapshotResponse(data=piece)

    def Restore(self, requests, context) -> messages.RestoreResponse:
        header = _header(requests, context)
        self._take_turn(context)
        position = Position(header.applied_index, header.cluster_id)
        with _told(context), self._changing:
            self._keep_turn(context)
            self._store.restore(position, _data(requests, header.size))
        logging.info("restored a snapshot of operation %d", position.applied_index)
        return messages.RestoreResponse()

    def Query(self, request, context) -> messages.StateMachineQueryResponse:
        with _told(context):
            answer, position = self._store.query(parse_query(request.query))
        return messages.StateMachineQueryResponse(result=answer.encode(), applied_index=position.applied_index)

    def _take_turn(self, context) -> None:
        with self._turns:
            before, self._turn = self._turn, context
        if before is not None:
            # Which ends what it waits for.
            before.cancel()

    def _keep_turn(self, context) -> None:
        with self._turns:
            if self._turn is not context:
                context.abort(grpc.StatusCode.ABORTED, "another Apply stream has begun, or a restore")


class _told:
    """Says in the protocol's codes what went wrong."""

    CODES = {
        Invalid: grpc.StatusCode.INVALID_ARGUMENT,
        Broken: grpc.StatusCode.INVALID_ARGUMENT,
        NotThere: grpc.StatusCode.OUT_OF_RANGE,
        sqlite3.Error: grpc.StatusCode.INTERNAL,
    }

    def __init__(self, context):
        self._context = context

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, why, _) -> None:
        for known, code in self.CODES.items():
            if kind is not None and issubclass(kind, known):
                self._context.abort(code, _line(why))


def _hello(requests, context) -> messages.ApplyHello:
    first = next(requests, None)
    if first is None or first.WhichOneof("message") != "hello":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message of Apply is a hello")
    if first.hello.protocol_version < PROTOCOL_VERSION:
        what = f"the replicator speaks version {first.hello.protocol_version}, and this program {PROTOCOL_VERSION}"
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)
    if first.hello.cluster_id == 0:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the hello names no cluster")
    return first.hello


def _following(applied: int, request: messages.ApplyOperations, context) -> "list[Operation]":
    operations = [Operation(operation.index, operation.data) for operation in request.operations]
    for expected, operation in enumerate(operations, applied + 1):
        if operation.index != expected or expected > INTEGER_MAX:
            what = f"operation {operation.index} came where {expected} comes next"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)
    return operations


def _results(applied: int, results: "list[str]") -> Iterator[messages.ApplyResponse]:
    for begin in range(0, len(results), RESULTS_MAX):
        some = [result.encode() for result in results[begin : begin + RESULTS_MAX]]
        told = messages.ApplyResults(applied_index=applied + begin + len(some), results=some)
        yield messages.ApplyResponse(results=told)


def _header(requests, context) -> messages.RestoreHeader:
    first = next(requests, None)
    if first is None or first.WhichOneof("message") != "header":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message of Restore is a header")
    if not 0 < first.header.applied_index <= INTEGER_MAX or first.header.cluster_id == 0:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the header names no operation or no cluster")
    return first.header


def _data(requests, size: int) -> Iterator[bytes]:
    """What was announced, or an exception."""
    left = size
    for request in requests:
        if request.WhichOneof("message") != "data" or len(request.data) > left:
            raise Broken("more came than was announced, or something else")
        left -= len(request.data)
        yield request.data
    if left > 0:
        raise Broken(f"{left} bytes of what was announced have not come")


def _line(why: BaseException) -> str:
    return " ".join(str(why).split())[:500]
