//! What the API server has told, kept up to date by one watch a kind.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::reflector::{Lookup, ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::watches::{Watch, Watches};
use crate::crd::RaftCluster;
use crate::resources::Kind;
use crate::resources::meta::{INSTANCE, REVISION, SELECTOR};

/// So many objects are listed at once: whole ones, with all that is dropped at once afterwards.
const PAGE: u32 = 50;
/// While it waits for the first lists, it looks so often.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// A RaftCluster: its namespace and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who is told what changed.
pub trait Listener: Send + Sync + 'static {
    /// A RaftCluster is there, is gone, or asks for something else.
    fn asked(&self, key: Key);
    /// Something that it has changed.
    fn changed(&self, key: Key);
    /// Something may have changed anywhere.
    fn all_changed(&self);
}

/// Everything that is watched in one namespace, or in all.
#[derive(Debug)]
pub struct Cache {
    namespace: Option<String>,
    watches: Watches,
    clusters: Store<DynamicObject>,
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    objects: BTreeMap<Kind, Store<DynamicObject>>,
}

impl Cache {
    /// Begins to watch. The tasks run until the set is dropped.
    pub fn watch(
        client: &Client,
        namespace: Option<&str>,
        watches: &Watches,
        listener: &Arc<dyn Listener>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let watch = |resource: &ApiResource| {
            let watch = watches.add(resource, namespace, listener);
            (watch.client(client), watch)
        };
        let clusters = Writer::new(raft_clusters());
        let pods = Writer::default();
        let claims = Writer::default();
        let mut cache = Self {
            namespace: namespace.map(str::to_owned),
            watches: watches.clone(),
            clusters: clusters.as_reader(),
            pods: pods.as_reader(),
            claims: claims.as_reader(),
            objects: BTreeMap::new(),
        };
        let owned = watcher::Config::default().labels(SELECTOR).page_size(PAGE);
        for kind in Kind::ALL {
            let writer = Writer::new(kind.api());
            cache.objects.insert(kind, writer.as_reader());
            let (client, watch) = watch(&kind.api());
            let api = dynamic(&client, namespace, &kind.api());
            tasks.spawn(follow(api, owned.clone(), trim_object, writer, watch));
        }
        let (client, pods_watch) = watch(&ApiResource::erase::<Pod>(&()));
        let api = typed::<Pod>(&client, namespace);
        tasks.spawn(follow(api, owned.clone(), trim_pod, pods, pods_watch));
        let (client, claims_watch) = watch(&ApiResource::erase::<PersistentVolumeClaim>(&()));
        let api = typed::<PersistentVolumeClaim>(&client, namespace);
        tasks.spawn(follow(api, owned, |_| {}, claims, claims_watch));
        let (client, clusters_watch) = watch(&raft_clusters());
        let api = dynamic(&client, namespace, &raft_clusters());
        tasks.spawn(follow_clusters(api, clusters, clusters_watch));
        cache
    }

    /// Waits until everything was listed once; what fails for too long is waited for no longer, so that people can be told.
    pub async fn is_settled(&self) {
        while !self
            .watches
            .are_settled(self.namespace.as_deref(), Instant::now())
        {
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }

    /// Whether everything was listed once: half a view is none.
    pub fn is_complete(&self) -> bool {
        self.watches.are_complete(self.namespace.as_deref())
    }

    /// Why what is here may not be so any more, and the way out.
    pub fn trouble(&self) -> Option<String> {
        self.watches.trouble(self.namespace.as_deref(), Instant::now())
    }

    /// The RaftCluster, if it is there.
    pub fn cluster(&self, key: &Key) -> Option<Arc<DynamicObject>> {
        let reference = ObjectRef::new_with(&key.name, raft_clusters());
        self.clusters.get(&reference.within(&key.namespace))
    }

    /// A pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// A claim of that name.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(&ObjectRef::new(name).within(namespace))
    }

    /// An object of that kind and name.
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let reference = ObjectRef::new_with(name, kind.api());
        self.objects.get(&kind)?.get(&reference.within(namespace))
    }
}

/// How the API server calls RaftClusters. They are read as they come: one that cannot be understood is no reason to serve no
/// other.
pub fn raft_clusters() -> ApiResource {
    ApiResource::erase::<RaftCluster>(&())
}

fn dynamic(client: &Client, namespace: Option<&str>, resource: &ApiResource) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

fn typed<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What nobody here looks at takes no memory.
fn trim_object(object: &mut DynamicObject) {
    if let Some(data) = object.data.as_object_mut() {
        data.remove("status");
    }
}

fn trim_pod(pod: &mut Pod) {
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: spec.node_name,
        ..PodSpec::default()
    });
    pod.annotations_mut().retain(|key, _| key == REVISION);
}

/// Follows what clusters have.
async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    trim: fn(&mut K),
    mut writer: Writer<K>,
    watch: Watch,
) where
    K: Resource
        + Lookup<DynamicType = <K as Resource>::DynamicType>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
    <K as Resource>::DynamicType: Eq + Hash + Clone + Debug + Send + Sync,
{
    let mut events = watcher::watcher(api, config).boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event.modify(|object| {
                object.managed_fields_mut().clear();
                trim(object);
            }),
            Err(error) => {
                watch.failed(error).await;
                continue;
            }
        };
        writer.apply_watcher_event(&event);
        watch.came(&event);
        match &event {
            Event::Apply(object) | Event::Delete(object) => {
                if let Some(key) = owner(object) {
                    watch.listener().changed(key);
                }
            }
            Event::InitDone => watch.listener().all_changed(),
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

fn owner<K: Resource>(object: &K) -> Option<Key> {
    Some(Key {
        namespace: object.meta().namespace.clone()?,
        name: object.labels().get(INSTANCE)?.clone(),
    })
}

/// Follows RaftClusters. What the operator itself writes into their status concerns nobody.
async fn follow_clusters(api: Api<DynamicObject>, mut writer: Writer<DynamicObject>, watch: Watch) {
    let store = writer.as_reader();
    let config = watcher::Config::default().page_size(PAGE);
    let mut events = watcher::watcher(api, config).boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event.modify(|object| object.managed_fields_mut().clear()),
            Err(error) => {
                watch.failed(error).await;
                continue;
            }
        };
        let before = match &event {
            Event::Apply(object) => store.get(&ObjectRef::from_obj_with(object, raft_clusters())),
            _ => None,
        };
        writer.apply_watcher_event(&event);
        watch.came(&event);
        match &event {
            Event::Apply(object) if before.is_some_and(|before| asks_for(&before) == asks_for(object)) => {}
            Event::Apply(object) | Event::Delete(object) => watch.listener().asked(key_of(object)),
            Event::InitDone => {
                for object in store.state() {
                    watch.listener().asked(key_of(&object));
                }
                watch.listener().all_changed();
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

fn key_of(object: &DynamicObject) -> Key {
    Key {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// All of a RaftCluster but its status.
fn asks_for(object: &DynamicObject) -> (Option<String>, Option<i64>, bool) {
    (
        object.metadata.uid.clone(),
        object.metadata.generation,
        object.metadata.deletion_timestamp.is_some(),
    )
}
