//! Client library: finds the leader, retries, exactly-once sessions, streaming.
