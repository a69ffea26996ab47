//! What a cluster is made of, as manifests: pure functions of its `RaftCluster`, without a client.

pub mod disruption_budget;
mod executor;
pub mod kind;
pub mod meta;
pub mod names;
pub mod network_policy;
pub mod placement;
pub mod pod;
pub mod record;
pub mod service_account;
pub mod services;
pub mod state_machine;
pub mod stateful_set;
pub mod stopping;
pub mod test_client;

pub use kind::Kind;

use serde_json::Value;

use crate::crd::RaftCluster;
use crate::crd::status::Images;
use crate::own_namespace;

/// One object that a cluster has, or must not have.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name, in the cluster's namespace.
    pub name: String,
    /// What of it is the operator's; none where it must not be there.
    pub body: Option<Value>,
}

impl Resource {
    fn new(kind: Kind, name: String, body: Option<Value>) -> Self {
        Self { kind, name, body }
    }
}

/// Everything but the StatefulSet and the record, which have rules of their own. Where the operator runs is the one thing that
/// it is told by nobody: that was found out at its start, and never changes. `unready_too` says whether Services reach pods that
/// Kubernetes takes for unready.
pub fn around(cluster: &RaftCluster, images: &Images, unready_too: bool) -> Vec<Resource> {
    let [peers, clients, leader] = services::all(cluster, unready_too);
    vec![
        service_account::build(cluster),
        peers,
        clients,
        leader,
        disruption_budget::build(cluster),
        network_policy::build(cluster, own_namespace::get()),
        test_client::build(cluster, images),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
    use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    /// A RaftCluster from the spec's lines.
    pub(crate) fn cluster(spec: &str) -> RaftCluster {
        let indented = spec.replace('\n', "\n  ");
        let yaml = format!(
            "apiVersion: raftlog.io/v1alpha1\nkind: RaftCluster\n\
             metadata: {{name: demo, namespace: shop, uid: u-1, generation: 1}}\nspec:\n  {indented}"
        );
        serde_saphyr::from_str(&yaml).unwrap()
    }

    pub(crate) fn images() -> Images {
        Images {
            node: "raft-node:1".into(),
            replicator: "raft-replicator:1".into(),
        }
    }

    fn round_trip<T: DeserializeOwned + Serialize>(body: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(body.clone()).unwrap()).unwrap()
    }

    #[test]
    fn every_field_is_one_that_kubernetes_knows() {
        let cluster = cluster(
            "replicas: 3\ntestClient: {enabled: true}\nnetworkPolicy: {enabled: true}\n\
             raft: {snapshot: {everyBytes: 64Mi}}\nstorage: {storageClassName: fast}\nnodeSelector: {disk: ssd}\n\
             image: {pullSecrets: [{name: key}]}\npriorityClassName: high\ntolerations: [{key: x, operator: Exists}]\n\
             resources: {node: {requests: {cpu: 100m}}}\nservice: {annotations: {a: b}}\n\
             replicator: {executor: {stateMachine: {image: kv, command: [/kv], args: [-v], env: [{name: A, value: b}], envFrom: \
             [{secretRef: {name: s}}], resources: {limits: {cpu: 1}}, livenessProbe: {grpc: {port: 7001}}, startupProbe: {tcpSocket: \
             {port: 7001}}}}}",
        );
        let mut all = around(&cluster, &images(), true);
        let template = pod::template(&cluster, &images());
        all.push(stateful_set::build(&cluster, &template, 3, "1Gi"));
        all.push(record::Record::default().resource(&cluster));
        assert_eq!(all.len(), 9);
        for resource in all {
            let body = resource.body.expect("all are asked for");
            let known = match resource.kind {
                Kind::ServiceAccount => round_trip::<ServiceAccount>(&body),
                Kind::Service => round_trip::<Service>(&body),
                Kind::PodDisruptionBudget => round_trip::<PodDisruptionBudget>(&body),
                Kind::NetworkPolicy => round_trip::<NetworkPolicy>(&body),
                Kind::ConfigMap => round_trip::<ConfigMap>(&body),
                Kind::StatefulSet => round_trip::<StatefulSet>(&body),
                Kind::Deployment => round_trip::<Deployment>(&body),
            };
            assert_eq!(known, body, "{:?} {}", resource.kind, resource.name);
            let owner = &body["metadata"]["ownerReferences"][0];
            assert_eq!(owner["uid"], "u-1");
            assert_eq!(owner["controller"], true);
            assert_eq!(body["metadata"]["namespace"], "shop");
        }
    }

    #[test]
    fn what_is_not_asked_for_must_not_be_there() {
        let cluster = cluster("replicas: 1");
        let absent: Vec<Kind> = around(&cluster, &images(), false)
            .into_iter()
            .filter(|resource| resource.body.is_none())
            .map(|resource| resource.kind)
            .collect();
        assert_eq!(
            absent,
            [Kind::PodDisruptionBudget, Kind::NetworkPolicy, Kind::Deployment]
        );
    }
}
