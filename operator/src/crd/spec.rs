//! What users ask for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::duration::DurationText;
use super::replicator::ReplicatorSpec;
use super::status::RaftClusterStatus;

/// A replicated operation log: nodes that agree, each with a replicator that executes what is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "raftlog.io",
    version = "v1alpha1",
    kind = "RaftCluster",
    plural = "raftclusters",
    shortname = "raft",
    namespaced,
    cel,
    doc = "A replicated operation log: nodes that agree, each with a replicator that executes what is committed.",
    derive = "PartialEq",
    status = "RaftClusterStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term"),
    printcolumn(name = "Commit", type_ = "integer", json_path = ".status.commitIndex"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message(
        "metadata.name has more than 40 characters; names of pods and Services are made from it: choose a shorter one"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name must start with a letter and hold lower case letters, digits and '-' only, as it names Services"
    ),
    validation = Rule::new("!self.metadata.name.matches('-(leader|peers|client)$')").message(
        "metadata.name may not end in -leader, -peers or -client, which names objects of other clusters: choose another one"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RaftClusterSpec {
    /// How many nodes vote: an odd number from 1 to 9. (n - 1) / 2 of them may fail.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 9))]
    #[x_kube(validation = Rule::new("self % 2 == 1").message(
        "replicas must be odd (1, 3, 5, 7 or 9): an even number tolerates no more failures than one less"
    ))]
    pub replicas: i32,

    /// The programs' images. What is left out is the operator's default, which is recorded in status.images and kept.
    #[serde(default)]
    pub image: ImageSpec,

    /// The volume of each pod.
    #[serde(default)]
    pub storage: StorageSpec,

    /// How the nodes agree.
    #[serde(default)]
    pub raft: RaftSpec,

    /// How committed operations are executed.
    #[serde(default)]
    pub replicator: ReplicatorSpec,

    /// A client that submits operation-1, operation-2, ... to all nodes in turn.
    #[serde(default)]
    pub test_client: TestClientSpec,

    /// What the containers ask for.
    #[serde(default)]
    pub resources: ResourcesSpec,

    /// Where pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How pods are spread; by default over zones and hosts, as well as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["topologyKey", "whenUnsatisfiable"])
    )]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,

    /// Taints that pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Labels that a pod's machine must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = bounds::label_values)]
    pub node_selector: BTreeMap<String, String>,

    /// The pods' PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,

    /// More labels for pods. The operator's own cannot be replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = bounds::label_values)]
    #[x_kube(validation = Rule::new(NOT_OF_THE_OPERATOR).message(
        "podLabels may not begin with raftlog.io/, as those labels are the operator's: a Service selects the leader by one of them. Choose another prefix"
    ))]
    pub pod_labels: BTreeMap<String, String>,

    /// More annotations for pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = bounds::annotation_values)]
    #[x_kube(validation = Rule::new(NOT_OF_THE_OPERATOR).message(
        "podAnnotations may not begin with raftlog.io/, as those annotations are the operator's: choose another prefix"
    ))]
    pub pod_annotations: BTreeMap<String, String>,

    /// The Service for clients.
    #[serde(default)]
    pub service: ServiceSpec,

    /// The PodDisruptionBudget: at most one pod is evicted at a time. One replica never has one.
    #[serde(default)]
    pub pod_disruption_budget: PodDisruptionBudgetSpec,

    /// A NetworkPolicy that keeps all but the cluster's own pods and the operator from the ports for nodes.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,

    /// Log lines.
    #[serde(default)]
    pub log: LogSpec,

    /// The operator changes nothing while this is true; status is still told.
    #[serde(default)]
    pub paused: bool,
}

/// Of keys of labels and annotations.
const NOT_OF_THE_OPERATOR: &str = "self.all(key, !key.startsWith('raftlog.io/'))";

fn replicas() -> i32 {
    3
}

/// The programs' images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    /// Image with raft-node and raftctl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub node: Option<String>,
    /// Image with raft-replicator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub replicator: Option<String>,
    /// When images are pulled.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets to pull with, in the cluster's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]),
        transform = bounds::secret_names
    )]
    pub pull_secrets: Vec<LocalObjectReference>,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The volume of each pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new(
        "!isQuantity(self.size) || !isQuantity(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0"
    ).message(
        "storage.size may not shrink, as volumes cannot: give the size it had, or a larger one"
    ),
    validation = Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
    ).message(
        "storage.storageClassName cannot change, as volumes stay in their class: restore it, or make a new RaftCluster"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// How much each pod stores, such as 1Gi; at least 32Mi. It may grow where the storage class allows it.
    #[serde(default = "StorageSpec::size")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.matches('^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$')").message(
            "storage.size must be a whole number of bytes, or of k, M, G, T, Ki, Mi, Gi or Ti: write 1536Mi instead of 1.5Gi, 1024Ti instead of 1Pi"
        ),
        validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('32Mi')) >= 0").message(
            "storage.size must be at least 32Mi: the log needs room for segments and snapshots"
        )
    )]
    pub size: String,
    /// The storage class; the cluster's default one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of volumes.
    #[serde(default)]
    pub retention: RetentionSpec,
}

impl StorageSpec {
    fn size() -> String {
        "1Gi".into()
    }
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: Self::size(),
            storage_class_name: None,
            retention: RetentionSpec::default(),
        }
    }
}

/// What becomes of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// When the RaftCluster is deleted: kept, they are adopted by a RaftCluster of the same name.
    #[serde(default = "RetentionSpec::when_deleted")]
    pub when_deleted: Retention,
    /// When the RaftCluster is scaled down, of members that have left.
    #[serde(default = "RetentionSpec::when_scaled")]
    pub when_scaled: Retention,
}

impl RetentionSpec {
    fn when_deleted() -> Retention {
        Retention::Retain
    }

    fn when_scaled() -> Retention {
        Retention::Delete
    }
}

impl Default for RetentionSpec {
    fn default() -> Self {
        Self {
            when_deleted: Self::when_deleted(),
            when_scaled: Self::when_scaled(),
        }
    }
}

/// Whether volumes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Retention {
    Retain,
    Delete,
}

impl Retention {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
        }
    }
}

/// How the nodes agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("duration(self.heartbeatInterval) < duration(self.electionTimeout.min)").message(
    "raft.heartbeatInterval must be below raft.electionTimeout.min, at best a third of it: shorten it or raise the minimum"
))]
#[serde(rename_all = "camelCase")]
pub struct RaftSpec {
    /// Without word from a leader for a random time in this range, a node campaigns.
    #[serde(default)]
    pub election_timeout: ElectionTimeout,
    /// Time between two heartbeats of a leader, such as 1s; at least 10ms.
    #[serde(default = "RaftSpec::heartbeat_interval")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10ms')").message(
        "raft.heartbeatInterval must be at least 10ms"
    ))]
    pub heartbeat_interval: DurationText,
    /// When snapshots are taken.
    #[serde(default)]
    pub snapshot: SnapshotSpec,
}

impl RaftSpec {
    fn heartbeat_interval() -> DurationText {
        "1s".into()
    }
}

impl Default for RaftSpec {
    fn default() -> Self {
        Self {
            election_timeout: ElectionTimeout::default(),
            heartbeat_interval: Self::heartbeat_interval(),
            snapshot: SnapshotSpec::default(),
        }
    }
}

/// A range of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("duration(self.min) < duration(self.max)").message(
        "raft.electionTimeout.min must be below max, at best half of it: lower min or raise max"
    ),
    validation = Rule::new("duration(self.min) >= duration('20ms') && duration(self.max) <= duration('1h')").message(
        "raft.electionTimeout must lie between 20ms and 60m"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ElectionTimeout {
    /// The shortest time, such as 1500ms.
    #[serde(default = "ElectionTimeout::min")]
    pub min: DurationText,
    /// The longest time, such as 3s.
    #[serde(default = "ElectionTimeout::max")]
    pub max: DurationText,
}

impl ElectionTimeout {
    fn min() -> DurationText {
        "1500ms".into()
    }

    fn max() -> DurationText {
        "3s".into()
    }
}

impl Default for ElectionTimeout {
    fn default() -> Self {
        Self {
            min: Self::min(),
            max: Self::max(),
        }
    }
}

/// When snapshots are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSpec {
    /// After so many committed entries; 0: never by number.
    #[serde(default = "SnapshotSpec::every_operations")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    pub every_operations: i64,
    /// Or after so many bytes of them, such as 256Mi, if that comes first; by default a 16th of the volume, at most 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.matches('^[1-9][0-9]{0,14}(Ki|Mi|Gi)?$')").message(
            "raft.snapshot.everyBytes must be a whole number of bytes, or of Ki, Mi or Gi: write 1536Mi instead of 1.5Gi"
        ),
        validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('4Mi')) >= 0").message(
            "raft.snapshot.everyBytes must be at least 4Mi: the longest operation has to fit between two snapshots"
        )
    )]
    pub every_bytes: Option<String>,
}

impl SnapshotSpec {
    fn every_operations() -> i64 {
        100_000
    }
}

impl Default for SnapshotSpec {
    fn default() -> Self {
        Self {
            every_operations: Self::every_operations(),
            every_bytes: None,
        }
    }
}

/// A client that submits operation-1, operation-2, ...
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestClientSpec {
    /// Whether there is one.
    #[serde(default)]
    pub enabled: bool,
    /// Time between two operations.
    #[serde(default = "TestClientSpec::interval")]
    pub interval: DurationText,
}

impl TestClientSpec {
    fn interval() -> DurationText {
        "10s".into()
    }
}

impl Default for TestClientSpec {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Self::interval(),
        }
    }
}

/// What the containers ask for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// The node.
    #[serde(default)]
    pub node: ComputeResources,
    /// The replicator.
    #[serde(default)]
    pub replicator: ComputeResources,
}

/// What one container asks for, such as {cpu: 500m, memory: 256Mi}.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComputeResources {
    /// What it gets at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// What is set aside for it; what is not named here is as much as its limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
}

/// The Service for clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// How it is reached.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// More annotations, for load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = bounds::annotation_values)]
    #[x_kube(validation = Rule::new(NOT_OF_THE_OPERATOR).message(
        "service.annotations may not begin with raftlog.io/, as those annotations are the operator's: choose another prefix"
    ))]
    pub annotations: BTreeMap<String, String>,
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

impl ServiceType {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// The PodDisruptionBudget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodDisruptionBudgetSpec {
    /// Whether there is one.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

impl Default for PodDisruptionBudgetSpec {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The NetworkPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkPolicySpec {
    /// Whether there is one.
    #[serde(default)]
    pub enabled: bool,
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSpec {
    /// How they look.
    #[serde(default)]
    pub format: LogFormat,
    /// Which there are: a level, or a filter as the variable `RUST_LOG` takes it.
    #[serde(default = "LogSpec::level")]
    #[schemars(length(min = 1, max = 256))]
    pub level: String,
}

impl LogSpec {
    fn level() -> String {
        "info".into()
    }
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            level: Self::level(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum LogFormat {
    #[default]
    Plain,
    Json,
}

impl LogFormat {
    /// As flags take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Json => "json",
        }
    }
}
