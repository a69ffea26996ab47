#!/usr/bin/env python3
"""A replicated ledger, to be copied: a state machine in Python behind the Raft Log Replicator.

Listens where STATE_MACHINE_LISTEN says, and keeps its data in the folder STATE_MACHINE_DATA_DIR.
"""

import logging
import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from raftlog.v1 import state_machine_pb2_grpc
from service import StateMachine
from store import Store

LISTEN = re.compile(r"unix:///.+|[0-9.]+:[0-9]+|\[[0-9a-f:]+\]:[0-9]+")
# Calls at a time; Apply and Restore take one each, and queries the others.
CALLS_MAX = 16
MESSAGE_BYTES_MAX = 8 << 20


def main() -> "str | None":
    """Serves until SIGTERM or SIGINT; the reason where it cannot."""
    logging.basicConfig(level=logging.INFO, format="ledger: %(message)s")
    listen = os.environ.get("STATE_MACHINE_LISTEN", "127.0.0.1:7001")
    folder = Path(os.environ.get("STATE_MACHINE_DATA_DIR", "./data/ledger"))
    if LISTEN.fullmatch(listen) is None:
        return f"'{listen}' is no place to listen: give unix:///PATH or IP:PORT"
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    try:
        machine = StateMachine(Store(folder))
    except Exception as why:
        return f"cannot open {folder}: {why}"
    server = grpc.server(
        ThreadPoolExecutor(CALLS_MAX),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            # A port that is taken is an error.
            ("grpc.so_reuseport", 0),
        ],
    )
    state_machine_pb2_grpc.add_StateMachineServicer_to_server(machine, server)
    try:
        bound = server.add_insecure_port(listen)
    except RuntimeError:
        bound = 0
    if bound == 0:
        return f"cannot listen at {listen}: is it taken, or is the folder not there?"
    server.start()
    logging.info("listens at %s, data in %s", listen, folder)
    end.wait()
    # The replicator's Apply stream does not end by itself.
    server.stop(None).wait()
    machine.close()
    return None


if __name__ == "__main__":
    failed = main()
    if failed is not None:
        sys.exit(f"ledger: {failed}")
