//! `deploy/Dockerfile`: each target built, and run by a real container runtime.

use processes::containers::{Container, Containerd};
use processes::ports::Ports;
use processes::wait::eventually;
use processes::{api, http};
use rustix::process::Signal;
use std::fs;

const NOBODY_SPECIAL: &str = "65532";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_run_a_cluster_of_one() {
    let Some(mut containerd) = Containerd::start("images::images_run_a_cluster_of_one").await else {
        return;
    };
    let (node_image, node_configuration) = containerd.build("raft-node").await;
    let (replicator_image, replicator_configuration) = containerd.build("raft-replicator").await;
    for (configuration, target) in [
        (&node_configuration, "raft-node"),
        (&replicator_configuration, "raft-replicator"),
    ] {
        assert_eq!(
            configuration["User"],
            format!("{NOBODY_SPECIAL}:{NOBODY_SPECIAL}")
        );
        assert_eq!(configuration["Labels"]["org.opencontainers.image.title"], target);
        assert_eq!(configuration["Entrypoint"][0], format!("/{target}"));
    }

    let ports = Ports::claim();
    let local = |offset| format!("127.0.0.1:{}", ports.at(offset));
    let environment = [
        ("RAFT_ID", "1".to_owned()),
        ("REPLICATOR_LISTEN", local(1)),
        ("REPLICATOR_HTTP_LISTEN", local(2)),
        ("RAFT_REPLICATOR_NAME", "q4node1".to_owned()),
    ];
    let mut replicator = containerd
        .run("q4node1", &replicator_image, &environment, &[])
        .await;
    let environment = [
        ("RAFT_ID", "1".to_owned()),
        ("RAFT_LISTEN", local(3)),
        ("RAFT_HTTP_LISTEN", local(4)),
        ("RAFT_PEERS", format!("1={}", local(3))),
        ("RAFT_REPLICATOR", format!("http://{}", local(1))),
    ];
    let mut node = containerd.run("node1", &node_image, &environment, &[]).await;
    for offset in [2, 4] {
        eventually("the containers to be ready", async || {
            let answer = http::get(ports.at(offset), "/readyz").await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.body)
            }
        })
        .await;
    }
    for container in [&node, &replicator] {
        assert_eq!(
            user(container),
            NOBODY_SPECIAL,
            "{} runs as root",
            container.client.name()
        );
    }

    let answer = api::submit(ports.at(3), "from a container")
        .await
        .expect("a cluster of one commits");
    assert_eq!(answer.index, 1);
    replicator
        .client
        .says("Node 1 executes op=from a container at index=1")
        .await;
    let health = ["/raftctl", "--endpoints", &local(3), "health"];
    containerd
        .run_to_end("health", &node_image, &health)
        .await
        .expect(0, &[]);

    for container in [&mut node, &mut replicator] {
        container.client.signal(Signal::TERM);
        let status = container.client.wait().await;
        assert!(
            status.success(),
            "{} ended with {status}",
            container.client.name()
        );
    }
}

/// The effective user of the container's first process.
fn user(container: &Container) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", container.id)).expect("the container runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .expect("every process has a user");
    line.split_whitespace()
        .nth(1)
        .expect("the effective one")
        .to_owned()
}
