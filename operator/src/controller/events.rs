//! Events of clusters, each with its own text. Kubernetes' clients often take all Events of one reason for the same, and show
//! the text of the first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::EventType;
use kube::{Api, Client};
use raftlog_telemetry::hostname;
use xxhash_rust::xxh3::xxh3_64;

use super::api::{CallError, call};
use crate::resources::meta::MANAGER;

/// The same is not told again within this time.
const AGAIN_AFTER: Duration = Duration::from_mins(6);
/// So many are remembered; beyond that, the oldest may be told again.
const REMEMBERED_MAX: usize = 1_024;
/// The API server takes 1 KiB.
const NOTE_CHARACTERS_MAX: usize = 1_000;
/// Nobody looks at it, but it has to be there.
const ACTION: &str = "Reconcile";

/// Publishes Events. Clones are the same.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
    told: Arc<Mutex<Told>>,
}

impl Events {
    /// By this process.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            instance: hostname::hostname(),
            told: Arc::default(),
        }
    }

    /// Tells it of that object, unless the same was told just now.
    pub async fn publish(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        note: &str,
    ) -> Result<(), CallError> {
        let note = cut(note);
        let digest = digest(about, reason, note);
        if !self.told(|told| told.is_news(digest, Instant::now())) {
            return Ok(());
        }
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let event = event(about, kind, reason, note, &self.instance, Timestamp::now());
        let created = call(api.create(&PostParams::default(), &event)).await;
        if created.is_err() {
            self.told(|told| told.forget(digest));
        }
        created.map(drop)
    }

    fn told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was told last, and when.
#[derive(Debug, Default)]
struct Told {
    at: BTreeMap<u64, Instant>,
}

impl Told {
    /// Whether that is to be told; if so, it counts as told.
    fn is_news(&mut self, digest: u64, now: Instant) -> bool {
        self.at
            .retain(|_, at| now.saturating_duration_since(*at) < AGAIN_AFTER);
        if self.at.contains_key(&digest) {
            return false;
        }
        if self.at.len() >= REMEMBERED_MAX {
            let oldest = self.at.iter().min_by_key(|(_, at)| **at);
            if let Some(digest) = oldest.map(|(digest, _)| *digest) {
                self.at.remove(&digest);
            }
        }
        self.at.insert(digest, now);
        true
    }

    fn forget(&mut self, digest: u64) {
        self.at.remove(&digest);
    }
}

fn digest(about: &ObjectReference, reason: &str, note: &str) -> u64 {
    let uid = about.uid.as_deref().unwrap_or_default();
    xxh3_64(format!("{uid}\n{reason}\n{note}").as_bytes())
}

/// As much of it as an Event holds: the limit is one of bytes, so characters that take several count as such.
fn cut(note: &str) -> &str {
    note.get(..note.floor_char_boundary(NOTE_CHARACTERS_MAX))
        .unwrap_or_default()
}

fn event(
    about: &ObjectReference,
    kind: EventType,
    reason: &str,
    note: &str,
    instance: &str,
    now: Timestamp,
) -> Event {
    let name = about.name.as_deref().unwrap_or(MANAGER);
    let kind = match kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", rand::random::<u64>())),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        regarding: Some(about.clone()),
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(note.to_owned()),
        action: Some(ACTION.to_owned()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> ObjectReference {
        ObjectReference {
            name: Some("demo".into()),
            namespace: Some("shop".into()),
            uid: Some("u-1".into()),
            ..ObjectReference::default()
        }
    }

    /// One reason for many texts is what most Events of a cluster are.
    #[test]
    fn only_the_very_same_is_told_once() {
        let mut told = Told::default();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let other = ObjectReference {
            uid: Some("u-2".into()),
            ..about()
        };
        for (about, reason, note, at, expected) in [
            (about(), "PodDeleted", "deleted pod demo-2", began, true),
            (about(), "PodDeleted", "deleted pod demo-1", after(1), true),
            (about(), "PodDeleted", "deleted pod demo-2", after(359), false),
            (about(), "PodEvicted", "deleted pod demo-2", after(359), true),
            (other, "PodDeleted", "deleted pod demo-2", after(359), true),
            (about(), "PodDeleted", "deleted pod demo-2", after(360), true),
        ] {
            assert_eq!(
                told.is_news(digest(&about, reason, note), at),
                expected,
                "{reason}: {note}"
            );
        }
        let digest = digest(&about(), "PodDeleted", "deleted pod demo-2");
        told.forget(digest);
        assert!(told.is_news(digest, after(360)), "it did not get through");
    }

    #[test]
    fn few_are_remembered() {
        let mut told = Told::default();
        let now = Instant::now();
        for digest in 0..5_000 {
            assert!(told.is_news(digest, now + Duration::from_millis(digest)));
        }
        assert_eq!(told.at.len(), REMEMBERED_MAX);
        assert!(!told.is_news(4_999, now + Duration::from_secs(6)));
        assert!(told.is_news(0, now + Duration::from_secs(6)), "it was the oldest");
    }

    #[test]
    fn a_note_has_an_end() {
        for (note, bytes) in [
            ("short".to_owned(), 5),
            ("x".repeat(5_000), 1_000),
            ("x".to_owned() + &"é".repeat(5_000), 999),
        ] {
            assert_eq!(cut(&note).len(), bytes);
        }
    }

    #[test]
    fn all_is_there_that_the_api_server_asks_for() {
        let told = event(
            &about(),
            EventType::Warning,
            "Degraded",
            "no room",
            "host-1",
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(told.metadata.namespace.as_deref(), Some("shop"));
        assert!(told.metadata.name.is_some_and(|name| name.starts_with("demo.")));
        for (field, expected) in [
            (told.type_, "Warning"),
            (told.reason, "Degraded"),
            (told.note, "no room"),
            (told.action, "Reconcile"),
            (told.reporting_controller, "raft-operator"),
            (told.reporting_instance, "host-1"),
        ] {
            assert_eq!(field.as_deref(), Some(expected));
        }
        assert!(told.event_time.is_some() && told.regarding == Some(about()));
    }
}
