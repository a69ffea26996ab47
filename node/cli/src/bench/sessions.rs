//! The clients' sessions.

use raftlog_client::{Client, Endpoint, Error, Options, Session};
use tokio::task::JoinSet;

/// Opens so many, each over a connection of its own.
pub(super) async fn open(endpoints: &[Endpoint], clients: u16) -> Result<Vec<Session>, Error> {
    let mut opening = JoinSet::new();
    for _ in 0..clients {
        let client = Client::new(endpoints.to_vec(), Options::default())?;
        opening.spawn(async move { client.open_session().await });
    }
    let mut sessions = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(session) => sessions.push(session?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(sessions)
}
