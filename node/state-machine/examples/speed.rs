//! How fast a state machine that does nothing is handed operations: through a unix socket, by a replicator that this program plays.
//! Prints operations a second of 256 bytes, and how long one alone takes.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use raftlog_proto::v1::state_machine_client::StateMachineClient;
use raftlog_proto::v1::{
    AppliedOperation, ApplyHello, ApplyOperations, ApplyRequest, ApplyResponse, apply_request, apply_response,
};
use state_machine::{Batch, Failed, Listen, Position, QueryError, Snapshot, StateMachine, serve_until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Of one run.
const RUN: Duration = Duration::from_secs(3);
/// Operations in a message, which is about what a replicator under load has for one.
const OPERATIONS: u64 = 512;
/// Operations that are not answered yet, about what a replicator hands out at most.
const UNANSWERED_MAX: u64 = 8_192;

/// Counts.
#[derive(Default)]
struct Nothing(Position);

impl StateMachine for Nothing {
    fn position(&mut self) -> Result<Position, Failed> {
        Ok(self.0)
    }

    fn apply(&mut self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
        self.0 = batch.position();
        Ok(batch.iter().map(|_| b"done".to_vec()).collect())
    }

    fn query(&mut self, _: &[u8]) -> Result<Vec<u8>, QueryError> {
        Ok(Vec::new())
    }

    fn snapshot(&mut self) -> Result<Snapshot, Failed> {
        Ok(Box::new(|_| Ok(())))
    }

    fn restore(&mut self, position: Position, _: &mut dyn Read) -> Result<(), Failed> {
        self.0 = position;
        Ok(())
    }
}

struct Stream {
    requests: mpsc::Sender<ApplyRequest>,
    responses: Streaming<ApplyResponse>,
    data: Bytes,
    sent: u64,
    applied: u64,
}

impl Stream {
    async fn send(&mut self, count: u64) -> Result<(), Problem> {
        let operations = (self.sent + 1..=self.sent + count).map(|index| AppliedOperation {
            index,
            term: 1,
            data: self.data.clone(),
        });
        let operations = operations.collect();
        self.sent += count;
        let message = Some(apply_request::Message::Operations(ApplyOperations { operations }));
        Ok(self.requests.send(ApplyRequest { message }).await?)
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        match self
            .responses
            .message()
            .await?
            .and_then(|response| response.message)
        {
            Some(apply_response::Message::Results(results)) => self.applied = results.applied_index,
            Some(apply_response::Message::Position(_)) => {}
            other => return Err(format!("{other:?}").into()),
        }
        Ok(())
    }
}

async fn open(url: String) -> Result<Stream, Problem> {
    let mut client = StateMachineClient::connect(url).await?;
    let (requests, queue) = mpsc::channel(2);
    let hello = apply_request::Message::Hello(ApplyHello {
        protocol_version: 1,
        cluster_id: 1,
        node: 1,
    });
    requests.send(ApplyRequest { message: Some(hello) }).await?;
    let responses = client.apply(ReceiverStream::new(queue)).await?.into_inner();
    Ok(Stream {
        requests,
        responses,
        data: vec![7; 256].into(),
        sent: 0,
        applied: 0,
    })
}

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let socket = std::env::temp_dir().join(format!("state-machine-speed-{}.sock", std::process::id()));
    let listen = Listen::Unix(socket.clone());
    let url = listen.to_string();
    tokio::spawn(async move { serve_until(&listen, Nothing::default(), std::future::pending()).await });
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let mut stream = open(url).await?;
    stream.receive().await?;

    let began = Instant::now();
    while began.elapsed() < RUN {
        while stream.sent - stream.applied + OPERATIONS <= UNANSWERED_MAX {
            stream.send(OPERATIONS).await?;
        }
        stream.receive().await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let count = u32::try_from(stream.applied)?;
    println!("many at a time: {:.0} operations/s", f64::from(count) / seconds);
    while stream.applied < stream.sent {
        stream.receive().await?;
    }

    let mut latency = Histogram::<u64>::new(3)?;
    let began = Instant::now();
    while began.elapsed() < RUN {
        let sent = Instant::now();
        stream.send(1).await?;
        stream.receive().await?;
        latency.record(u64::try_from(sent.elapsed().as_micros())?)?;
    }
    println!(
        "one at a time: p50 {} us, p99 {} us",
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99)
    );
    std::fs::remove_file(socket)?;
    Ok(())
}
