//! Which of several operators acts: the one that holds a Lease. It is client-go's way: a record is replaced only at the
//! resourceVersion that was seen, and a holder is given up when its record has not changed for the Lease's duration by
//! this process's own clock; nobody's wall clock is compared with another's.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use raftlog_telemetry::hostname;
use tokio::time::Instant;

use crate::controller::api::{CallError, call};
use crate::own_namespace::FILE;

/// The Lease's name.
const NAME: &str = "raft-operator";
/// A holder that did not renew for so long is given up.
const DURATION: Duration = Duration::from_secs(12);
/// A holder that could not renew for so long gives up itself, before others may.
const RENEW_WITHIN: Duration = Duration::from_secs(8);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(4);

/// What can be done about a Lease as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// There is none.
    Create,
    /// It is ours.
    Renew,
    /// It is nobody's, or of somebody who did not renew.
    Take,
    /// It is somebody else's.
    Wait,
}

/// What was seen last, and since when.
#[derive(Debug, Clone)]
struct Seen {
    record: LeaseSpec,
    since: Instant,
}

/// One candidate.
pub(crate) struct Election {
    api: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
    /// As it was written last: a holder renews that without looking first, and looks when it was refused.
    held: Option<Lease>,
    renewed_at: Instant,
}

impl Election {
    /// For the Lease in that namespace, or in the pod's own.
    pub(crate) fn new(client: Client, namespace: Option<&str>) -> Result<Self, String> {
        let namespace = match namespace {
            Some(namespace) => namespace.to_owned(),
            None => fs::read_to_string(FILE)
                .map_err(|error| format!("cannot read {FILE}: {error}; give --lease-namespace"))?
                .trim()
                .to_owned(),
        };
        Ok(Self {
            api: Api::namespaced(client, &namespace),
            identity: format!("{}_{:016x}", hostname::hostname(), rand::random::<u64>()),
            seen: None,
            held: None,
            renewed_at: Instant::now(),
        })
    }

    /// Waits until the Lease is this process's; notes there when it is seen to be another one's.
    pub(crate) async fn win(&mut self, waits: &AtomicBool) {
        tracing::info!("{} waits for the Lease {NAME}", self.identity);
        while !self.attempt(Instant::now() + ATTEMPT_MAX).await {
            if self.seen.is_some() {
                waits.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!("{} holds the Lease {NAME}", self.identity);
    }

    /// Renews it until that fails for too long; says why.
    pub(crate) async fn hold(&mut self) -> String {
        loop {
            // Not even an attempt that hangs, or the pause before it, makes it hold on for longer than it may.
            let give_up_at = self.renewed_at + RENEW_WITHIN;
            tokio::time::sleep_until(give_up_at.min(Instant::now() + RETRY)).await;
            let held = self.attempt(give_up_at.min(Instant::now() + ATTEMPT_MAX)).await;
            let other = self
                .seen
                .as_ref()
                .and_then(|seen| seen.record.holder_identity.clone());
            if !held && other.as_ref() != Some(&self.identity) {
                return format!("the Lease {NAME} was lost to {}", other.unwrap_or_default());
            }
            if self.renewed_at.elapsed() >= RENEW_WITHIN {
                return format!(
                    "the Lease {NAME} could not be renewed within {} s",
                    RENEW_WITHIN.as_secs()
                );
            }
        }
    }

    /// Gives it up, where it is held, so that nobody has to wait for it.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = call(self.api.get_opt(NAME)).await else {
            return;
        };
        let holder = lease.spec.as_mut().map(|spec| &mut spec.holder_identity);
        if let Some(holder) = holder.filter(|holder| holder.as_ref() == Some(&self.identity)) {
            *holder = Some(String::new());
            // Otherwise it runs out by itself.
            let _ = call(self.api.replace(NAME, &PostParams::default(), &lease)).await;
        }
    }

    /// Says whether it is held.
    async fn attempt(&mut self, until: Instant) -> bool {
        let began = Instant::now();
        match tokio::time::timeout_at(until, self.try_once()).await {
            Ok(Ok(held)) => {
                if held {
                    // Others count from when they see it, which is later.
                    self.renewed_at = began;
                }
                held
            }
            Ok(Err(error)) => {
                tracing::warn!("The Lease {NAME}: {error}; trying again");
                false
            }
            Err(_) => false,
        }
    }

    async fn try_once(&mut self) -> Result<bool, CallError> {
        let lease = match self.held.take() {
            Some(held) => Some(held),
            None => call(self.api.get_opt(NAME)).await?,
        };
        let now = Instant::now();
        let record = lease.as_ref().and_then(|lease| lease.spec.clone());
        self.see(record.clone(), now);
        let what = decide(lease.is_some(), self.seen.as_ref(), &self.identity, now);
        let spec = next(what, record.as_ref(), &self.identity, Timestamp::now());
        let written = match (what, lease) {
            (Move::Wait, _) => return Ok(false),
            (_, Some(mut lease)) => {
                // With its resourceVersion: of two that take it at once, one fails.
                lease.spec = Some(spec.clone());
                call(self.api.replace(NAME, &PostParams::default(), &lease)).await
            }
            (_, None) => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(NAME.into()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec.clone()),
                };
                call(self.api.create(&PostParams::default(), &lease)).await
            }
        };
        match written {
            Ok(lease) => {
                self.see(lease.spec.clone(), now);
                self.held = Some(lease);
                Ok(true)
            }
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Only a change starts the clock again.
    fn see(&mut self, record: Option<LeaseSpec>, now: Instant) {
        let same = self.seen.as_ref().map(|seen| &seen.record) == record.as_ref();
        if !same {
            self.seen = record.map(|record| Seen { record, since: now });
        }
    }
}

fn decide(there: bool, seen: Option<&Seen>, identity: &str, now: Instant) -> Move {
    let Some(seen) = seen else {
        return if there { Move::Take } else { Move::Create };
    };
    match seen.record.holder_identity.as_deref() {
        Some(holder) if holder == identity => Move::Renew,
        None | Some("") => Move::Take,
        Some(_) => {
            let promised = seen
                .record
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok());
            let promised = promised.map_or(DURATION, Duration::from_secs);
            let passed = now.saturating_duration_since(seen.since);
            if passed >= promised {
                Move::Take
            } else {
                Move::Wait
            }
        }
    }
}

/// The record that is written.
fn next(what: Move, before: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let mut spec = before.cloned().unwrap_or_default();
    if what != Move::Renew {
        let transitions = spec.lease_transitions.unwrap_or_default();
        spec.lease_transitions = Some(transitions.saturating_add(i32::from(what == Move::Take)));
        spec.acquire_time = Some(MicroTime(now));
        spec.holder_identity = Some(identity.to_owned());
    }
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    spec
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    fn held(by: &str, since: Instant) -> Seen {
        Seen {
            record: LeaseSpec {
                holder_identity: Some(by.into()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            },
            since,
        }
    }

    #[test]
    fn a_holder_is_given_up_by_the_own_clock_only() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        for (there, seen, at, expected) in [
            (false, None, now, Move::Create),
            (true, None, now, Move::Take),
            (true, Some(held("me", now)), now, Move::Renew),
            (true, Some(held("", now)), now, Move::Take),
            (true, Some(held("other", now)), now, Move::Wait),
            (true, Some(held("other", now)), later(14), Move::Wait),
            (true, Some(held("other", now)), later(15), Move::Take),
        ] {
            assert_eq!(decide(there, seen.as_ref(), "me", at), expected, "{seen:?}");
        }
    }

    /// An API server that answers so many calls with what it was asked to write, and fails after that time from then on.
    fn answers(calls: u32, fails_after: Duration) -> Client {
        let left = Arc::new(AtomicU32::new(calls));
        let service = tower::service_fn(move |request: Request<Body>| {
            let left = Arc::clone(&left);
            async move {
                let answers =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                if answers.is_err() {
                    tokio::time::sleep(fails_after).await;
                    return Err("it fails".into());
                }
                let lease = match *request.method() {
                    Method::GET => json!({"metadata": {"name": NAME, "resourceVersion": "1"}})
                        .to_string()
                        .into_bytes(),
                    _ => request.into_body().collect_bytes().await?.to_vec(),
                };
                Ok::<_, tower::BoxError>(Response::new(Body::from(lease)))
            }
        });
        Client::new(service, "raft-system")
    }

    /// The last attempt began within the time, and ended when another one might act already.
    #[tokio::test(start_paused = true)]
    async fn it_gives_up_in_time_however_the_api_server_fails() {
        for (calls, fails_after) in [(2, 0), (2, 60_000), (3, 60_000), (4, 1_700), (4, 3_500)] {
            let client = answers(calls, Duration::from_millis(fails_after));
            let mut election = Election::new(client, Some("raft-system")).unwrap();
            election.win(&AtomicBool::new(false)).await;
            let why = election.hold().await;
            assert!(why.contains("could not be renewed"), "{why}");
            let held = election.renewed_at.elapsed();
            // The clock of tests has milliseconds.
            assert!(
                held <= RENEW_WITHIN + Duration::from_millis(1),
                "{fails_after}: {held:?}"
            );
        }
    }

    #[test]
    fn a_record_says_who_and_since_when() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let created = next(Move::Create, None, "me", at(1));
        assert_eq!(created.lease_transitions, Some(0));
        let renewed = next(Move::Renew, Some(&created), "me", at(2));
        assert_eq!(renewed.acquire_time, Some(MicroTime(at(1))));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
        let taken = next(Move::Take, Some(&renewed), "other", at(3));
        assert_eq!(taken.lease_transitions, Some(1));
        assert_eq!(taken.holder_identity.as_deref(), Some("other"));
        assert_eq!(taken.acquire_time, Some(MicroTime(at(3))));
    }
}
