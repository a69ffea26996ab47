//! raft-replicator: holds the committed operations of its node and executes them in order.
