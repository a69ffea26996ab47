//! `leader transfer`.

use std::time::Duration;

use raftlog_client::{Client, Options};
use serde::Serialize;

use crate::{args::Common, failure::Failure, output::Output, text};

#[derive(Serialize)]
struct Transferred {
    node: u32,
    member_id: String,
    client_address: String,
    term: u64,
}

/// Hands leadership to `node`, or to whom the leader chooses, and says who leads now.
pub(crate) async fn transfer(common: &Common, node: Option<u32>, timeout: Duration) -> Result<(), Failure> {
    let options = Options {
        timeout,
        ..Options::default()
    };
    let client = Client::new(common.endpoints.to_vec(), options)?;
    let (leader, term) = client.transfer_leadership(node).await?;
    let transferred = Transferred {
        node: leader.node,
        member_id: text::id(leader.member_id),
        client_address: leader.client_address,
        term,
    };
    Output::stdout().whole(
        common.output,
        &transferred,
        || {
            format!(
                "Node {} at {} leads term {term}",
                transferred.node, transferred.client_address
            )
        },
        || transferred.node.to_string(),
    )
}
