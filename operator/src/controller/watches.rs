//! Which watches work. What one told is acted upon only while it does: otherwise it is of the past, and nobody would notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Request;
use kube::Client;
use kube::client::Body;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;
use tower::BoxError;

use super::api::{self, CallError};
use super::cache::Listener;
use super::metrics::{Metrics, WatchFailureLabel, WatchLabel};
use super::view::one_line;

/// A watch that fails for so long is told, and nothing is changed until it works again.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Reason of what is told then.
pub const CANNOT_WATCH: &str = "CannotWatch";
/// An answer begins within this time, or is a failure: without it, a watch could wait for ever and seem to work.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Before the second attempt.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// No pause is longer, as people who gave a right back wait for it.
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// The list or the watch that was going on is too old by now, and begins anew: that is how watches are.
const EXPIRED: u16 = 410;

/// What one watch is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    /// All, where there is none.
    namespace: Option<String>,
    kind: String,
}

#[derive(Debug, Clone)]
struct Failure {
    since: Instant,
    attempts: u32,
    verb: &'static str,
    code: Option<u16>,
    why: String,
}

/// How one watch does.
#[derive(Debug, Clone, Default)]
struct Health {
    /// Everything was listed once.
    listed: bool,
    failure: Option<Failure>,
}

impl Health {
    fn is_given_up(&self, now: Instant) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| now.saturating_duration_since(failure.since) >= PATIENCE)
    }
}

/// All watches of this process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Watches {
    by_subject: Arc<Mutex<BTreeMap<Subject, Health>>>,
    metrics: Metrics,
}

impl Watches {
    /// Counts their failures there.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            by_subject: Arc::default(),
            metrics,
        }
    }

    /// One more watch, in a namespace or in all. That one is told when it works again.
    pub fn add(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        listener: &Arc<dyn Listener>,
    ) -> Watch {
        let subject = Subject {
            namespace: namespace.map(str::to_owned),
            kind: resource.kind.clone(),
        };
        self.lock().insert(subject.clone(), Health::default());
        // It is there before anything fails.
        self.metrics
            .watches_failing
            .get_or_create(&label(&subject))
            .inc_by(0);
        Watch {
            watches: self.clone(),
            subject,
            listener: Arc::clone(listener),
        }
    }

    /// What cannot be watched there for too long, and the way out; of several, one.
    pub fn trouble(&self, namespace: Option<&str>, now: Instant) -> Option<String> {
        self.lock()
            .iter()
            .filter(|(subject, health)| subject.namespace.as_deref() == namespace && health.is_given_up(now))
            .find_map(|(subject, health)| Some(told(subject, health.failure.as_ref()?)))
    }

    /// Whether everything was listed once there.
    pub fn are_complete(&self, namespace: Option<&str>) -> bool {
        self.lock()
            .iter()
            .filter(|(subject, _)| subject.namespace.as_deref() == namespace)
            .all(|(_, health)| health.listed)
    }

    /// Whether there is nothing left to wait for there: everything was listed once, or fails for too long.
    pub fn are_settled(&self, namespace: Option<&str>, now: Instant) -> bool {
        self.lock()
            .iter()
            .filter(|(subject, _)| subject.namespace.as_deref() == namespace)
            .all(|(_, health)| health.listed || health.is_given_up(now))
    }

    /// Whether all work, wherever they are; or why not.
    pub fn all_work(&self, now: Instant) -> Result<(), String> {
        let by_subject = self.lock();
        let given_up = by_subject.iter().find(|(_, health)| health.is_given_up(now));
        if let Some((subject, failure)) =
            given_up.and_then(|(subject, health)| Some((subject, health.failure.as_ref()?)))
        {
            return Err(told(subject, failure));
        }
        if by_subject.is_empty() {
            return Err("begins to watch".into());
        }
        match by_subject.iter().find(|(_, health)| !health.listed) {
            Some((subject, health)) => {
                let why = health.failure.as_ref().map(|failure| told(subject, failure));
                let waits = || format!("lists {} objects{}", subject.kind, place(subject));
                Err(why.unwrap_or_else(waits))
            }
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Subject, Health>> {
        self.by_subject.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch. Clones are the same.
#[derive(Clone)]
pub struct Watch {
    watches: Watches,
    subject: Subject,
    listener: Arc<dyn Listener>,
}

impl Watch {
    /// A client for it. A watch that goes on where it was tells nothing until something changes; but it was answered.
    pub fn client(&self, client: &Client) -> Client {
        let (asked, watch) = (client.clone(), self.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, watch) = (asked.clone(), watch.clone());
            async move {
                let is_watch = api::is_watch(request.uri().query());
                let response = match tokio::time::timeout(ANSWER_MAX, client.send(request)).await {
                    Ok(response) => response?,
                    Err(_) => return Err(no_answer()),
                };
                if is_watch && response.status().is_success() {
                    watch.works(false);
                }
                Ok::<_, BoxError>(response)
            }
        });
        Client::new(service, client.default_namespace())
    }

    /// Who is told what it brings.
    pub fn listener(&self) -> &dyn Listener {
        &*self.listener
    }

    /// Takes note of what came, once the cache holds it.
    pub fn came<K>(&self, event: &Event<K>) {
        match event {
            Event::InitDone => self.works(true),
            Event::Apply(_) | Event::Delete(_) => self.works(false),
            // It is about to list; nobody said yet that it may.
            Event::Init | Event::InitApply(_) => {}
        }
    }

    /// Takes note of a failure, and returns when it may be tried again.
    pub async fn failed(&self, error: watcher::Error) {
        let (verb, error) = taken_apart(error);
        let code = error.code();
        let why = one_line(&error.to_string());
        if code == Some(EXPIRED) {
            tracing::debug!("The watch of {} begins anew: {why}", self.subject.kind);
        }
        let pause = self.note_failure(verb, code, why, Instant::now());
        tokio::time::sleep(pause).await;
    }

    fn note_failure(&self, verb: &'static str, code: Option<u16>, why: String, now: Instant) -> Duration {
        let kind = self.subject.kind.clone();
        let failures = &self.watches.metrics.watch_failures;
        failures.get_or_create(&WatchFailureLabel { kind, verb }).inc();
        let mut by_subject = self.watches.lock();
        let health = by_subject.entry(self.subject.clone()).or_default();
        let before = health.failure.as_ref();
        let failure = Failure {
            since: before.map_or(now, |before| before.since),
            attempts: before.map_or(0, |before| before.attempts.saturating_add(1)),
            verb,
            code,
            why,
        };
        let is_news = before.is_none_or(|before| before.why != failure.why);
        if is_news && code != Some(EXPIRED) {
            tracing::warn!("{}; trying again", what_failed(&self.subject, &failure));
        }
        if before.is_none() {
            self.watches
                .metrics
                .watches_failing
                .get_or_create(&label(&self.subject))
                .inc();
        }
        let pause = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(failure.attempts));
        health.failure = Some(failure);
        pause.min(PAUSE_LONGEST)
    }

    fn works(&self, listed: bool) {
        let mut by_subject = self.watches.lock();
        let health = by_subject.entry(self.subject.clone()).or_default();
        health.listed |= listed;
        let Some(failure) = health.failure.take() else {
            return;
        };
        drop(by_subject);
        self.watches
            .metrics
            .watches_failing
            .get_or_create(&label(&self.subject))
            .dec();
        if failure.code != Some(EXPIRED) {
            let Subject { kind, .. } = &self.subject;
            tracing::info!(
                "The operator watches {kind} objects{} again",
                place(&self.subject)
            );
        }
        self.listener.all_changed();
    }
}

/// What was tried, and what came of it.
fn taken_apart(error: watcher::Error) -> (&'static str, CallError) {
    match error {
        watcher::Error::InitialListFailed(error) => ("list", error.into()),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            ("watch", error.into())
        }
        watcher::Error::WatchError(status) => ("watch", kube::Error::Api(status).into()),
        nameless @ watcher::Error::NoResourceVersion => {
            ("list", kube::Error::Service(nameless.to_string().into()).into())
        }
    }
}

fn no_answer() -> BoxError {
    format!("the API server did not answer within {} s", ANSWER_MAX.as_secs()).into()
}

fn label(subject: &Subject) -> WatchLabel {
    WatchLabel {
        kind: subject.kind.clone(),
    }
}

fn place(subject: &Subject) -> String {
    let namespace = subject.namespace.as_ref();
    namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"))
}

fn told(subject: &Subject, failure: &Failure) -> String {
    let way_out = match failure.code {
        Some(401 | 403) => {
            "give the operator's ServiceAccount that right, as its chart does, and it goes on by itself"
        }
        Some(404) => {
            "install what defines them (for RaftClusters, `raft-operator crd` prints it), and it goes on by itself"
        }
        _ => "it tries again by itself: look at the API server, and at the network in between",
    };
    let what = what_failed(subject, failure);
    format!("{what}; nothing is changed until it can: {way_out}")
}

fn what_failed(subject: &Subject, failure: &Failure) -> String {
    let Failure { verb, why, .. } = failure;
    format!(
        "the operator cannot {verb} {} objects{}: {why}",
        subject.kind,
        place(subject)
    )
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::controller::cache::{Key, raft_clusters};
    use crate::resources::Kind;

    #[derive(Default)]
    struct Wakes(Mutex<u32>);

    impl Listener for Wakes {
        fn asked(&self, _: Key) {}
        fn changed(&self, _: Key) {}
        fn all_changed(&self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    fn forbidden() -> (&'static str, Option<u16>, String) {
        ("watch", Some(403), "no right".to_owned())
    }

    fn note(watch: &Watch, (verb, code, why): (&'static str, Option<u16>, String), now: Instant) -> Duration {
        watch.note_failure(verb, code, why, now)
    }

    #[test]
    fn a_watch_is_given_up_when_it_fails_for_long_and_goes_on_by_itself() {
        let metrics = Metrics::default();
        let watches = Watches::new(metrics.clone());
        let wakes = Arc::new(Wakes::default());
        let listener: Arc<dyn Listener> = Arc::clone(&wakes) as Arc<dyn Listener>;
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(watches.all_work(began).is_err(), "nothing is watched yet");
        let sets = watches.add(&Kind::StatefulSet.api(), None, &listener);
        let services = watches.add(&Kind::Service.api(), None, &listener);
        let elsewhere = watches.add(&Kind::StatefulSet.api(), Some("shop"), &listener);
        assert_eq!(
            watches.all_work(began).unwrap_err(),
            "lists Service objects",
            "a view that is not complete is none"
        );
        for watch in [&sets, &services, &elsewhere] {
            watch.came(&Event::<()>::InitDone);
        }
        assert_eq!(watches.all_work(began), Ok(()));

        note(&sets, forbidden(), began);
        // That it was about to list is no success.
        sets.came(&Event::<()>::Init);
        note(&sets, forbidden(), after(29));
        assert_eq!(watches.trouble(None, after(29)), None, "it may pass");
        let trouble = watches.trouble(None, after(30)).unwrap();
        for part in [
            "cannot watch StatefulSet objects",
            "no right",
            "give the operator's ServiceAccount",
        ] {
            assert!(trouble.contains(part), "{trouble}");
        }
        assert_eq!(watches.trouble(Some("shop"), after(30)), None, "there it works");
        assert_eq!(watches.all_work(after(30)), Err(trouble));
        let failing = metrics.watches_failing.get_or_create(&label(&sets.subject)).get();
        assert_eq!((failing, *wakes.0.lock().unwrap()), (1, 0));

        sets.works(false);
        assert_eq!(watches.trouble(None, after(31)), None);
        assert_eq!(watches.all_work(after(31)), Ok(()));
        let failing = metrics.watches_failing.get_or_create(&label(&sets.subject)).get();
        assert_eq!((failing, *wakes.0.lock().unwrap()), (0, 1), "all look again");
    }

    #[test]
    fn one_that_never_listed_is_waited_for_until_it_is_given_up() {
        let watches = Watches::default();
        let listener: Arc<dyn Listener> = Arc::new(Wakes::default());
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let clusters = watches.add(&raft_clusters(), None, &listener);
        let pods = watches.add(&Kind::Service.api(), None, &listener);
        pods.came(&Event::<()>::InitDone);
        assert!(!watches.are_settled(None, after(60)), "it may only be slow");
        note(&clusters, ("list", Some(404), "not found".into()), after(60));
        assert!(!watches.are_settled(None, after(89)));
        assert!(watches.are_settled(None, after(90)));
        assert!(!watches.are_complete(None));
        let why = watches.all_work(after(90)).unwrap_err();
        assert!(
            why.contains("cannot list RaftCluster objects") && why.contains("raft-operator crd"),
            "{why}"
        );
        clusters.came(&Event::<()>::InitDone);
        assert!(watches.are_complete(None) && watches.are_settled(None, after(90)));
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let watches = Watches::default();
        let listener: Arc<dyn Listener> = Arc::new(Wakes::default());
        let watch = watches.add(&raft_clusters(), None, &listener);
        let now = Instant::now();
        let pauses: Vec<u64> = (0..40)
            .map(|_| note(&watch, forbidden(), now).as_secs())
            .collect();
        assert_eq!(pauses[..6], [1, 2, 4, 8, 10, 10]);
        assert_eq!(pauses.last(), Some(&10));
    }

    #[test]
    fn errors_say_what_was_tried() {
        let status = || Status {
            code: 403,
            message: "no right".into(),
            ..Status::default()
        };
        let api = || kube::Error::Api(status().boxed());
        for (error, verb, code) in [
            (watcher::Error::InitialListFailed(api()), "list", Some(403)),
            (watcher::Error::WatchStartFailed(api()), "watch", Some(403)),
            (watcher::Error::WatchError(status().boxed()), "watch", Some(403)),
            (watcher::Error::NoResourceVersion, "list", None),
        ] {
            let (tried, error) = taken_apart(error);
            assert_eq!((tried, error.code()), (verb, code), "{error}");
        }
    }
}
