//! For how long nothing is committed, as clients see it, when a leader is killed, hands over, or is told to stop.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use raftlog_client::Session;
use raftlog_load::{Connection, Span, closed};
use serde::Serialize;

use super::{Stage, publish};
use crate::{
    arguments::{ExecutorOutput, FailoverArgs},
    failure::Failure,
    plot,
    statistics::Quantiles,
    system::{
        Kind, Place, flag,
        raftlog::{Leader, Raftlog, Running},
    },
    wait,
};

const OPERATION_BYTES: usize = 256;
/// Clients write until they are dropped.
const FOR_EVER: Duration = Duration::from_hours(24);
/// What came with a change of leaders is over so long after it.
const SETTLES_WITHIN: Duration = Duration::from_millis(700);
/// How often the others are asked who leads.
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// How a leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Loss {
    /// kill -9
    Killed,
    /// `raftctl leader transfer`
    HandsOver,
    /// SIGTERM
    ToldToStop,
}

impl Loss {
    const ALL: [Self; 3] = [Self::Killed, Self::HandsOver, Self::ToldToStop];

    fn name(self) -> &'static str {
        match self {
            Self::Killed => "kill -9 of the leader",
            Self::HandsOver => "leader transfer",
            Self::ToldToStop => "SIGTERM to the leader",
        }
    }
}

/// When clients were last told that something is committed, and for how long they were not.
#[derive(Debug)]
struct Pulse(Mutex<Beats>);

#[derive(Clone, Copy, Debug)]
struct Beats {
    last: Instant,
    longest: Duration,
    count: u64,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(Beats {
            last: now,
            longest: Duration::ZERO,
            count: 0,
        }))
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self, now: Instant) {
        let mut beats = self.beats();
        beats.longest = beats.longest.max(now.saturating_duration_since(beats.last));
        beats.last = now;
        beats.count += 1;
    }

    /// From now on the longest pause is looked for.
    fn begin(&self) -> u64 {
        let mut beats = self.beats();
        beats.longest = Duration::ZERO;
        beats.count
    }
}

/// A connection whose acknowledgements are a pulse.
struct Heard {
    session: Session,
    pulse: Arc<Pulse>,
}

impl Connection for Heard {
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let written = self.session.write(operation).await;
            if written.is_ok() {
                self.pulse.beat(Instant::now());
            }
            written
        }
        .boxed()
    }
}

/// What came of all runs of a kind, in milliseconds.
#[derive(Debug, Serialize)]
struct Row {
    loss: Loss,
    /// Between two acknowledgements that clients got, at most.
    gap: Quantiles,
    /// From the loss until another node said that it leads.
    elected: Quantiles,
    gaps: Vec<f64>,
    until_elected: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Found {
    members: u16,
    clients: u16,
    election_timeout: String,
    heartbeat_interval: String,
    rows: Vec<Row>,
}

/// Measures each kind of loss in turn, so that a noisy machine hits all alike.
pub(crate) async fn run(arguments: &FailoverArgs) -> Result<(), Failure> {
    let stage = Stage::new(&arguments.folders, arguments.members)?;
    let programs = arguments.own.programs.as_deref();
    let raftlog = Raftlog::find(Kind::Raftlog, programs, ExecutorOutput::Null).map_err(Failure::new)?;
    let raftlog = raftlog.with_node_flags([
        flag("election-timeout", &arguments.election_timeout),
        flag("heartbeat-interval", &arguments.heartbeat_interval),
    ]);
    let running = raftlog.run(&stage.place()).await?;
    let pulse = Arc::new(Pulse::new(Instant::now()));
    let connections = connect(&running, arguments.connections, &pulse).await?;
    let operation = Bytes::from(vec![b'x'; OPERATION_BYTES]);
    let span = Span::from_now(Duration::ZERO, FOR_EVER);
    let load = closed::run(&connections, arguments.clients.into(), &operation, span, |_| {});
    let mut trial = Trial {
        raftlog: &raftlog,
        place: stage.place(),
        running,
        pulse,
    };
    let rows = tokio::select! {
        rows = trial.all(arguments.runs) => rows?,
        outcome = load => return Err(Failure::new(format!("clients ended: {:?}", outcome.first_error))),
    };
    drop(trial);
    let found = Found {
        members: arguments.members,
        clients: arguments.clients,
        election_timeout: arguments.election_timeout.clone(),
        heartbeat_interval: arguments.heartbeat_interval.clone(),
        rows,
    };
    let title = format!(
        "gap in commits, {} members, election timeout {}, heartbeat every {}",
        found.members, found.election_timeout, found.heartbeat_interval
    );
    let series: Vec<(&str, &[f64])> = found
        .rows
        .iter()
        .map(|row| (row.loss.name(), row.gaps.as_slice()))
        .collect();
    let drawn = plot::distribution(&title, &series);
    let drawn = drawn.map_err(|error| Failure::new(format!("cannot draw failover.svg: {error}")))?;
    let plot = ("failover.svg".to_owned(), drawn);
    publish("failover", &arguments.folders, &table(&found), &found, &[plot])?;
    stage.end(&arguments.folders);
    Ok(())
}

async fn connect(
    running: &Running,
    connections: u16,
    pulse: &Arc<Pulse>,
) -> Result<Vec<Arc<dyn Connection>>, Failure> {
    let sessions = running.connections(connections).await?.into_iter();
    let heard = sessions.map(|session| {
        let pulse = Arc::clone(pulse);
        Arc::new(Heard { session, pulse }) as Arc<dyn Connection>
    });
    Ok(heard.collect())
}

/// A cluster whose leader is lost again and again.
struct Trial<'a> {
    raftlog: &'a Raftlog,
    place: Place<'a>,
    running: Running,
    pulse: Arc<Pulse>,
}

impl Trial<'_> {
    async fn all(&mut self, runs: u16) -> Result<Vec<Row>, Failure> {
        let mut taken = Loss::ALL.map(|loss| (loss, Vec::new(), Vec::new()));
        for run in 1..=runs {
            for (loss, gaps, elected) in &mut taken {
                let (gap, after) = self.lose(*loss).await?;
                let (gap, after) = (milliseconds(gap), milliseconds(after));
                eprintln!(
                    "{run} of {runs}, {}: {gap:.0} ms without commits, another leads after {after:.0} ms",
                    loss.name()
                );
                gaps.push(gap);
                elected.push(after);
            }
        }
        let rows = taken.into_iter().map(|(loss, gaps, until_elected)| Row {
            loss,
            gap: Quantiles::of(&gaps),
            elected: Quantiles::of(&until_elected),
            gaps,
            until_elected,
        });
        Ok(rows.collect())
    }

    /// The longest pause, and how long it took until another node led.
    async fn lose(&mut self, loss: Loss) -> Result<(Duration, Duration), Failure> {
        self.running.wait_until_ready().await?;
        tokio::time::sleep(SETTLES_WITHIN).await;
        let before = self.running.leader().await.map_err(Failure::new)?;
        let count = self.pulse.begin();
        let began = Instant::now();
        match loss {
            Loss::Killed => self.running.kill(before.member),
            Loss::HandsOver => self.running.hand_over().await?,
            Loss::ToldToStop => self.running.terminate(before.member)?,
        }
        self.wait_for_another(before, began).await?;
        let elected = began.elapsed();
        self.wait_for_commits(count).await?;
        tokio::time::sleep(SETTLES_WITHIN).await;
        let gap = self.pulse.beats().longest;
        match loss {
            Loss::Killed => self
                .raftlog
                .start_again(&mut self.running, &self.place, before.member)?,
            Loss::ToldToStop => {
                self.wait_for_stop(before.member).await?;
                self.raftlog
                    .start_again(&mut self.running, &self.place, before.member)?;
            }
            Loss::HandsOver => {}
        }
        Ok((gap, elected))
    }

    async fn wait_for_another(&self, before: Leader, began: Instant) -> Result<(), Failure> {
        loop {
            match self.running.leader().await {
                Ok(leader) if leader.term > before.term => return Ok(()),
                _ if began.elapsed() > wait::PATIENCE => {
                    return Err(Failure::new(format!(
                        "nobody came to lead after node {}",
                        before.member
                    )));
                }
                _ => tokio::time::sleep(ASK_INTERVAL).await,
            }
        }
    }

    /// Until clients are told of commits again: of more than had been on their way.
    async fn wait_for_commits(&self, count: u64) -> Result<(), Failure> {
        let began = Instant::now();
        let beats = || *self.pulse.beats();
        let (seen, since) = (beats().count.max(count), Instant::now());
        while beats().count < seen + 100 && since.elapsed() < SETTLES_WITHIN {
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        while beats().count == seen {
            if began.elapsed() > wait::PATIENCE {
                return Err(Failure::new("nothing is committed any more"));
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        Ok(())
    }

    async fn wait_for_stop(&mut self, member: u16) -> Result<(), Failure> {
        let began = Instant::now();
        while !self.running.has_stopped(member) {
            if began.elapsed() > wait::PATIENCE {
                return Err(Failure::new(format!("node {member} does not stop")));
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        Ok(())
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn table(found: &Found) -> String {
    let Found {
        members,
        clients,
        election_timeout,
        heartbeat_interval,
        rows,
    } = found;
    let mut text = format!(
        "{members} members, {clients} clients, election timeout {election_timeout}, heartbeat every {heartbeat_interval}; milliseconds\n\n\
         | | runs | gap in commits: p50 | p90 | p99 | max | another leads after: p50 | p99 | max |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for row in rows {
        let (gap, elected) = (row.gap, row.elected);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            row.loss.name(),
            row.gaps.len(),
            gap.p50,
            gap.p90,
            gap.p99,
            gap.max,
            elected.p50,
            elected.p99,
            elected.max
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_counts_from_when_it_is_looked_for() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let pulse = Pulse::new(began);
        pulse.beat(at(500));
        assert_eq!(pulse.begin(), 1);
        for beat in [510, 520, 820, 830] {
            pulse.beat(at(beat));
        }
        let beats = *pulse.beats();
        assert_eq!((beats.longest, beats.count), (Duration::from_millis(300), 5));
    }

    #[test]
    fn every_loss_has_a_row() {
        let gaps: Vec<f64> = (1..=50).map(f64::from).collect();
        let row = |loss| Row {
            loss,
            gap: Quantiles::of(&gaps),
            elected: Quantiles::of(&gaps),
            gaps: gaps.clone(),
            until_elected: gaps.clone(),
        };
        let text = table(&Found {
            members: 5,
            clients: 16,
            election_timeout: "150ms..300ms".to_owned(),
            heartbeat_interval: "50ms".to_owned(),
            rows: Loss::ALL.map(row).into(),
        });
        assert!(
            text.contains("| kill -9 of the leader | 50 | 25 | 45 | 50 | 50 | 25 |"),
            "{text}"
        );
        assert!(text.contains("| SIGTERM to the leader |"), "{text}");
    }
}
