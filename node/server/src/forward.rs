//! To the leader, one hop. What goes wrong on the way is told apart: before the request left, nothing was appended; after
//! that the outcome is unknown.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use raftlog_proto::{error, reason};
use raftlog_raft::ids::NodeNumber;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::connect;
use crate::handle::Handle;
use crate::node::Leader;

/// Marks a forwarded request: its value is the node that forwarded it.
const FORWARDED_BY: &str = "raftlog-forwarded-by";
/// How long an answer is still waited for once another leader is known.
const GRACE: Duration = Duration::from_secs(1);

/// Whether another node forwarded this request: it is not forwarded again.
pub(crate) fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED_BY)
}

/// A request that says who forwards it, and how long it may take.
pub(crate) fn request<T>(message: T, by: NodeNumber, timeout: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(FORWARDED_BY, AsciiMetadataValue::from(by));
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

/// Keeps the connection to the latest leader.
pub(crate) struct Forwarder {
    core: Handle,
    patience: Duration,
    kept: Mutex<Option<(String, Channel)>>,
}

impl Forwarder {
    /// `patience` bounds connecting, and how long a dead leader goes unnoticed.
    pub(crate) fn new(core: Handle, patience: Duration) -> Self {
        Self {
            core,
            patience,
            kept: Mutex::default(),
        }
    }

    /// A connection to that address: the kept one, or a new one that connects when it is used.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((to, channel)) = &*kept
            && to == address
        {
            return Ok(channel.clone());
        }
        let endpoint = connect::endpoint(format!("http://{address}"), self.patience)
            .map_err(|why| unreachable(address, &why))?;
        let channel = endpoint.connect_lazy();
        *kept = Some((address.to_owned(), channel.clone()));
        Ok(channel)
    }

    /// Waits for the leader's answer; for a short while only once somebody else leads.
    pub(crate) async fn answer<T>(
        &self,
        leader: &Leader,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            biased;
            answer = call => answer.map_err(|status| failure(&leader.client_address, &status)),
            () = self.succeeded(leader) => Err(broken(&leader.client_address, "another leader was elected")),
        }
    }

    /// Returns some time after another leader than that one is known.
    async fn succeeded(&self, leader: &Leader) {
        let mut watch = self.core.watch();
        let another = watch.wait_for(|status| {
            status
                .leader
                .as_ref()
                .is_some_and(|known| known.member_id != leader.member_id)
        });
        // Without a core there is nobody to tell of another leader.
        if another.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
    }
}

/// What the client is told when the leader's answer is an error, or there is none.
pub(crate) fn failure(address: &str, status: &Status) -> Status {
    if error::reason_of(status).is_some() {
        // The leader's own answer, without the metadata of its connection.
        return Status::with_details(status.code(), status.message(), status.details().to_vec().into());
    }
    if error::never_sent(status) {
        return unreachable(address, &connect::root_cause(status));
    }
    match status.code() {
        // The leader did not get around to it: it says so by its code alone.
        Code::DeadlineExceeded | Code::InvalidArgument | Code::OutOfRange => {
            Status::new(status.code(), status.message())
        }
        _ => broken(address, status.message()),
    }
}

fn unreachable(address: &str, why: &str) -> Status {
    let message = format!("the leader at {address} cannot be reached: {why}; try again later");
    error::status(Code::Unavailable, reason::NO_LEADER, message)
}

fn broken(address: &str, why: &str) -> Status {
    let message = format!(
        "the connection to the leader at {address} broke: {why}; the outcome is unknown, retry with the same session and sequence"
    );
    error::status(Code::Aborted, reason::FORWARD_BROKEN, message)
}

#[cfg(test)]
mod tests {
    use tonic::ConnectError;

    use super::*;

    #[test]
    fn before_it_left_nothing_was_appended_and_after_that_nobody_knows() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let connect = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let disk_full = error::status(Code::ResourceExhausted, reason::DISK_FULL, "full");
        for (status, code, reason) in [
            (connect, Code::Unavailable, Some(reason::NO_LEADER)),
            (
                Status::from_error(Box::new(reset)),
                Code::Aborted,
                Some(reason::FORWARD_BROKEN),
            ),
            (
                Status::unavailable("GOAWAY"),
                Code::Aborted,
                Some(reason::FORWARD_BROKEN),
            ),
            (Status::unknown("h2"), Code::Aborted, Some(reason::FORWARD_BROKEN)),
            (
                Status::cancelled("Timeout expired"),
                Code::Aborted,
                Some(reason::FORWARD_BROKEN),
            ),
            (Status::deadline_exceeded("late"), Code::DeadlineExceeded, None),
            (disk_full, Code::ResourceExhausted, Some(reason::DISK_FULL)),
        ] {
            let told = failure("b:1", &status);
            assert_eq!(told.code(), code, "{told:?}");
            assert_eq!(error::reason_of(&told).as_deref(), reason, "{told:?}");
        }
    }

    #[test]
    fn a_forwarded_request_says_so() {
        let request = request((), 3, Some(Duration::from_secs(2)));
        assert!(is_forwarded(request.metadata()));
        assert!(request.metadata().contains_key("grpc-timeout"));
        assert!(!is_forwarded(&MetadataMap::new()));
    }
}
