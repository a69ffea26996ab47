//! `status`.

use raftlog_client::{Client, Endpoint, Options};
use serde::Serialize;

use crate::{
    args::{Common, StatusArgs},
    cluster_status::{self, NodeView, View},
    executor_status::ExecutorView,
    failure::Failure,
    output::{Output, table},
    text,
};

#[derive(Serialize)]
struct Status {
    nodes: Vec<NodeView>,
}

/// Prints every node's own view. Fails only if no node answers.
pub(crate) async fn run(common: &Common, arguments: &StatusArgs) -> Result<(), Failure> {
    let client = Client::new(common.endpoints.to_vec(), Options::default())?;
    let nodes = cluster_status::fetch(&client, arguments.timeout).await;
    let any = nodes.iter().any(|node| node.status.is_some());
    let status = Status { nodes };
    Output::stdout().whole(
        common.output,
        &status,
        || render(&status.nodes),
        || raw(&status.nodes),
    )?;
    if any {
        Ok(())
    } else {
        let asked: Vec<&str> = common.endpoints.iter().map(Endpoint::as_str).collect();
        Err(Failure::failed(format!(
            "no node answered at {}: check --endpoints and that the nodes run",
            asked.join(", ")
        )))
    }
}

fn render(nodes: &[NodeView]) -> String {
    let rows = nodes.iter().map(|node| {
        node.status
            .as_ref()
            .map_or_else(|| unreachable_row(node), |view| row(node, view))
    });
    let titles = [
        "NODE",
        "ENDPOINT",
        "ROLE",
        "TERM",
        "LEADER",
        "COMMIT",
        "LAST",
        "PERSISTED",
        "EXECUTED",
        "LEVEL",
        "SUPPORTS",
        "READY",
        "REASON",
    ];
    table(&titles, rows.collect())
}

fn row(node: &NodeView, view: &View) -> Vec<String> {
    let remark = view
        .executor
        .as_ref()
        .map(ExecutorView::remark)
        .unwrap_or_default();
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    vec![
        view.node.to_string(),
        node.endpoint.clone(),
        view.role.to_owned(),
        view.term.to_string(),
        number(view.leader.map(u64::from)),
        view.commit_index.to_string(),
        view.last_index.to_string(),
        view.persisted_index.to_string(),
        number(view.executed_index),
        number(Some(view.feature_level.into()).filter(|&level| level > 0)),
        text::levels(view.feature_level_min, view.feature_level_max),
        if view.ready { "yes" } else { "no" }.to_owned(),
        format!("{}{}", view.reason, remark),
    ]
}

fn unreachable_row(node: &NodeView) -> Vec<String> {
    let why = node.unreachable.as_deref().unwrap_or_default();
    [
        "-",
        &node.endpoint,
        "unreachable",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
        "no",
        why,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Node number and role of each node that answered.
fn raw(nodes: &[NodeView]) -> String {
    let lines: Vec<String> = nodes
        .iter()
        .filter_map(|node| node.status.as_ref())
        .map(|view| format!("{} {}", view.node, view.role))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_status::tests::{healthy, unreachable};

    #[test]
    fn the_table_names_everyone() {
        let nodes = [healthy(1), healthy(2), unreachable(3)];
        let expected = "\
NODE  ENDPOINT        ROLE         TERM  LEADER  COMMIT  LAST  PERSISTED  EXECUTED  LEVEL  SUPPORTS  READY  REASON
1     127.0.0.1:5001  leader       3     1       10      10    10         9         1      1-2       yes    follows node 1
2     127.0.0.1:5002  follower     3     1       10      10    10         9         1      1-2       yes    follows node 1
-     127.0.0.1:5003  unreachable  -     -       -       -     -          -         -      -         no     cannot connect: Connection refused (os error 111)";
        assert_eq!(render(&nodes), expected);
        assert_eq!(raw(&nodes), "1 leader\n2 follower");
    }
}
