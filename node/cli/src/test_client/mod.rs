//! `client`: the test client. Submits `operation-1`, `operation-2`, ... to all endpoints in turn, never to the leader by
//! choice, so that forwarding is seen at work.
//!
//! `operation-N` has sequence N in a session of a fixed `client_id`. That alone makes repeats impossible; and by asking the
//! cluster where that session ended, a restarted client goes on where it was, without a file of its own.

mod resume;
mod voice;

use std::time::Duration;

use bytes::Bytes;
use raftlog_client::{Client, Committed, Error, Options, Submission};
use raftlog_proto::reason;
use raftlog_telemetry::signals::Signals;
use tokio::time::MissedTickBehavior;

use self::{
    resume::{Next, Search},
    voice::Voice,
};
use crate::{
    args::{ClientArgs, Common},
    cluster_status,
    failure::Failure,
};

/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a node may take to answer such a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Before an operation that failed is submitted again.
const SUBMIT_AGAIN: Duration = Duration::from_secs(1);

/// Submits until it has submitted enough, or is told to end.
pub(crate) async fn run(common: &Common, arguments: &ClientArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}; see ulimit -n")))?;
    let options = Options {
        follow_leader: false,
        ..Options::default()
    };
    let client = Client::new(common.endpoints.to_vec(), options)?;
    tokio::select! {
        ended = submit_all(&client, arguments) => ended,
        _ = signals.next() => Ok(()),
    }
}

async fn submit_all(client: &Client, arguments: &ClientArgs) -> Result<(), Failure> {
    let voice = Voice::new(arguments.log_format);
    let mut number = highest(client, &arguments.client_id).await? + 1;
    let mut ticks = tokio::time::interval(arguments.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut submitted = 0;
    while arguments.count != Some(submitted) {
        ticks.tick().await;
        voice.say(voice::SENDS)?;
        let operation = format!("operation-{number}");
        if let Some(committed) = submit(client, &arguments.client_id, number).await? {
            voice.say(&voice::accepted(&committed, &operation))?;
            submitted += 1;
        }
        number += 1;
        client.advance();
    }
    Ok(())
}

/// Submits one operation until it is committed. `None`: it was long ago, and how has been forgotten.
async fn submit(client: &Client, client_id: &str, number: u64) -> Result<Option<Committed>, Failure> {
    loop {
        let submission = Submission {
            operation: Bytes::from(format!("operation-{number}")),
            client_id: client_id.to_owned(),
            sequence: number,
            ..Submission::default()
        };
        match client.submit(submission).await {
            Ok(committed) => return Ok(Some(committed)),
            Err(Error::Unknown { reason, .. }) if reason == reason::SEQUENCE_FORGOTTEN => return Ok(None),
            Err(error @ Error::Invalid(_)) => return Err(error.into()),
            Err(error) => {
                eprintln!("raftctl client: {error}; submitting operation-{number} again");
                tokio::time::sleep(SUBMIT_AGAIN).await;
            }
        }
    }
}

/// The highest number that was ever submitted under this `client_id`, once there is a leader to ask.
async fn highest(client: &Client, client_id: &str) -> Result<u64, Failure> {
    let mut search = Search::new(operations_held(client).await);
    loop {
        match search.next() {
            Next::Highest(number) => return Ok(number),
            Next::Ask(sequence) => {
                let remembered = is_remembered(client, client_id, sequence).await?;
                search.answered(sequence, remembered);
            }
        }
    }
}

/// Waits for a leader; gives how many operations it holds, or a node that follows it.
async fn operations_held(client: &Client) -> u64 {
    loop {
        let views = cluster_status::fetch(client, LOOK_TIMEOUT).await;
        let views = views.into_iter().filter_map(|node| node.status);
        if let Some(held) = views
            .filter(|view| view.leader.is_some())
            .map(|view| view.last_index)
            .max()
        {
            return held;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether the session remembers this sequence. Acknowledging the sequence itself makes it a mere question.
async fn is_remembered(client: &Client, client_id: &str, sequence: u64) -> Result<bool, Failure> {
    loop {
        let question = Submission {
            operation: Bytes::from(format!("operation-{sequence}")),
            client_id: client_id.to_owned(),
            sequence,
            acknowledged_through: sequence,
            ..Submission::default()
        };
        match client.submit(question).await {
            Ok(_) => return Ok(true),
            Err(Error::Unknown { reason, .. }) if reason == reason::SEQUENCE_FORGOTTEN => return Ok(false),
            Err(error @ Error::Invalid(_)) => return Err(error.into()),
            Err(error) => {
                eprintln!("raftctl client: {error}; asking again where the session of {client_id} ended");
                tokio::time::sleep(SUBMIT_AGAIN).await;
            }
        }
    }
}
