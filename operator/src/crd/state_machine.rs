//! A container of the user's own that every committed operation is applied by.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Probe};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::spec::ComputeResources;

/// A container beside node and replicator that serves `raftlog.v1.StateMachine`: on the socket or port that `STATE_MACHINE_LISTEN`
/// names, with its state in the folder `STATE_MACHINE_DATA_DIR`, which is on the pod's volume. It is pulled as spec.image says, runs as user
/// 65532, and writes to nothing but that folder and /tmp.
// A probe for readiness there is not: execution is no reason to take a pod out of its Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateMachine {
    /// Its image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// What is run in the place of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4_096)))]
    pub command: Vec<String>,
    /// Arguments, in the place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4_096)))]
    pub args: Vec<String>,
    /// Variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]),
        transform = bounds::variables
    )]
    #[x_kube(validation = Rule::new(
        "self.all(variable, variable.name != 'STATE_MACHINE_LISTEN' && variable.name != 'STATE_MACHINE_DATA_DIR')"
    ).message(
        "replicator.executor.stateMachine.env may not set STATE_MACHINE_LISTEN and STATE_MACHINE_DATA_DIR, which the operator does: remove \
         them; port chooses a port in the place of the socket"
    ))]
    pub env: Vec<EnvVar>,
    /// Config maps and secrets whose keys become variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
    /// It listens at this port of loopback, for what cannot listen on a unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_024, max = 65_535))]
    #[x_kube(validation = Rule::new("!(self in [5001, 5002, 6001, 8001, 9001])").message(
        "replicator.executor.stateMachine.port may not be 5001, 5002, 6001, 8001 or 9001, which node and replicator listen at: write 7001"
    ))]
    pub port: Option<i32>,
    /// What it asks for.
    #[serde(default)]
    pub resources: ComputeResources,
    /// When it is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(ONE_HANDLER).message(
        "replicator.executor.stateMachine.livenessProbe must have exactly one of exec, grpc, httpGet and tcpSocket"
    ))]
    pub liveness_probe: Option<Probe>,
    /// When it is restarted while it starts; the pod is not ready before it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(ONE_HANDLER).message(
        "replicator.executor.stateMachine.startupProbe must have exactly one of exec, grpc, httpGet and tcpSocket"
    ))]
    pub startup_probe: Option<Probe>,
}

const ONE_HANDLER: &str = "[has(self.exec), has(self.grpc), has(self.httpGet), has(self.tcpSocket)].filter(given, given).size() == 1";
