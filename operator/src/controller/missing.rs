//! Why pods that are asked for are not made: only the StatefulSet's Events know, so they are looked up, but seldom.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

use super::api::call;
use super::view::one_line;

/// Pods get so long to be made.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two look-ups.
const AGAIN: Duration = Duration::from_mins(1);
/// How many Events are looked at.
const EVENTS_MAX: u32 = 50;

/// What is known about pods that are missing.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    since: Option<Instant>,
    asked_at: Option<Instant>,
    why: Option<String>,
}

impl Missing {
    /// Takes note whether pods are missing; says whether it is time to look up why.
    fn note(&mut self, missing: bool, now: Instant) -> bool {
        if !missing {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let late = now.saturating_duration_since(since) >= PATIENCE;
        let asked = self
            .asked_at
            .is_some_and(|at| now.saturating_duration_since(at) < AGAIN);
        late && !asked
    }

    /// Why pods of that StatefulSet are missing, where they are and it is known.
    pub async fn why(
        &mut self,
        client: &Client,
        namespace: &str,
        name: &str,
        missing: bool,
    ) -> Option<String> {
        let now = Instant::now();
        if self.note(missing, now) {
            self.asked_at = Some(now);
            self.why = Some(look_up(client, namespace, name).await);
        }
        self.why.clone()
    }
}

async fn look_up(client: &Client, namespace: &str, name: &str) -> String {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let selector = format!("involvedObject.kind=StatefulSet,involvedObject.name={name},type=Warning");
    let events = call(api.list(&ListParams::default().fields(&selector).limit(EVENTS_MAX))).await;
    let latest = events.ok().and_then(|events| latest(events.items));
    latest.map_or_else(
        || format!("see `kubectl describe statefulset {name}`"),
        |message| one_line(&message),
    )
}

/// The message of the one that was written last. Versions are numbers, and as texts they would be in another order.
fn latest(events: Vec<Event>) -> Option<String> {
    let version = |event: &Event| -> Option<u64> { event.metadata.resource_version.as_ref()?.parse().ok() };
    events.into_iter().max_by_key(version)?.message
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn the_latest_event_counts() {
        let event = |version: &str, message: &str| Event {
            metadata: ObjectMeta {
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            message: Some(message.into()),
            ..Event::default()
        };
        let (early, late, odd) = (event("999", "early"), event("1000", "late"), event("x", "odd"));
        for (events, expected) in [
            (vec![early.clone(), late.clone()], Some("late")),
            (vec![late, odd.clone(), early], Some("late")),
            (vec![odd], Some("odd")),
            (vec![], None),
        ] {
            assert_eq!(latest(events).as_deref(), expected);
        }
    }

    #[test]
    fn it_is_looked_up_late_and_seldom() {
        let mut missing = Missing::default();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(!missing.note(true, began));
        assert!(!missing.note(true, after(9)));
        assert!(missing.note(true, after(10)));
        missing.asked_at = Some(after(10));
        assert!(!missing.note(true, after(69)));
        assert!(missing.note(true, after(70)));
        assert!(!missing.note(false, after(71)));
        assert!(!missing.note(true, after(72)), "it begins anew");
    }
}
