//! `demo`: a whole cluster on this machine, as real processes with real disks, each line prefixed with who said it.

mod child;
mod paint;
mod plan;
mod ports;
mod progress;

use std::{
    collections::BTreeSet,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use raftlog_telemetry::lines::{Lines, Problem};
use tempfile::TempDir;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use self::{
    child::{Event, Order},
    paint::Kind,
    plan::{Process, Role},
    progress::Progress,
};
use crate::{args::DemoArgs, failure::Failure, text};

/// Lines that wait to be printed.
const EVENTS_QUEUE: usize = 1024;
/// Writes to stdout that may fail in a row before the demo ends: about half a second.
const ATTEMPTS_MAX: u64 = 5;

/// How long children may take to stop before they are killed. Nodes go on forwarding for two seconds.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// Runs the demo to its end.
pub(crate) async fn run(arguments: &DemoArgs) -> Result<(), Failure> {
    let mut signals =
        Signals::listen().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let data = Data::prepare(arguments.data_dir.as_deref())?;
    let options = plan::Options {
        nodes: arguments.nodes,
        base_port: arguments.base_port,
        data: data.path(),
        interval: arguments.interval,
        operations: arguments.operations,
    };
    let processes = plan::processes(&options);
    ports::check(&processes).map_err(Failure::failed)?;
    let mut demo = Demo::start(processes, arguments)?;
    demo.introduce(data.path()).await;
    let verdict = demo.watch(&mut signals).await;
    let ended = demo.stop(verdict, &mut signals).await;
    data.remove()?;
    ended
}

/// The signals that end a demo; all of them gracefully.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Where everything is kept.
enum Data {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Data {
    fn prepare(folder: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) = folder else {
            let made = tempfile::Builder::new().prefix("raftctl-demo-").tempdir();
            return made.map(Self::Temporary).map_err(|error| {
                Failure::failed(format!(
                    "cannot make a temporary folder: {error}; choose one with --data-dir"
                ))
            });
        };
        match std::fs::create_dir_all(folder) {
            Ok(()) => Ok(Self::Kept(folder.to_owned())),
            Err(error) => Err(Failure::failed(format!(
                "cannot make the folder {}: {error}; choose another --data-dir",
                folder.display()
            ))),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(folder) => folder,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn remove(self) -> Result<(), Failure> {
        let Self::Temporary(folder) = self else {
            return Ok(());
        };
        let path = folder.path().to_owned();
        folder.close().map_err(|error| {
            Failure::failed(format!(
                "cannot remove the temporary folder {}: {error}; remove it by hand",
                path.display()
            ))
        })
    }
}

/// Why a demo comes to its end.
enum Verdict {
    /// All operations are executed on all replicators.
    Done,
    /// Somebody asked for it.
    Interrupted,
    /// Whoever read the output has enough.
    OutputClosed,
    /// A process ended by itself: its place, and how.
    Died(usize, String),
}

/// The running processes.
struct Demo {
    processes: Vec<Process>,
    orders: watch::Sender<Order>,
    events: mpsc::Receiver<Event>,
    progress: Progress,
    printer: Printer,
    operations: Option<u64>,
    /// The last line on stderr of each process.
    last_errors: Vec<String>,
    /// Places of the processes that have not ended.
    running: BTreeSet<usize>,
}

impl Demo {
    fn start(processes: Vec<Process>, arguments: &DemoArgs) -> Result<Self, Failure> {
        let binary = std::env::current_exe().map_err(|error| {
            Failure::failed(format!(
                "cannot find this very program: {error}; call it by its path"
            ))
        })?;
        let printer = Printer::new(!arguments.no_heartbeats)?;
        let (orders, _) = watch::channel(Order::Run);
        let (sender, events) = mpsc::channel(EVENTS_QUEUE);
        for (place, process) in processes.iter().enumerate() {
            // If one cannot be started, those that were are killed as their handles are dropped.
            let child = child::spawn(&binary, process).map_err(|error| {
                Failure::failed(format!(
                    "cannot start {} ({}): {error}",
                    process.name,
                    child::program_of(process)
                ))
            })?;
            tokio::spawn(child::attend(
                place,
                process.role.stops(),
                child,
                orders.subscribe(),
                sender.clone(),
            ));
        }
        let running = (0..processes.len()).collect();
        let last_errors = vec![String::new(); processes.len()];
        let (progress, operations) = (
            Progress::new(arguments.nodes, arguments.operations),
            arguments.operations,
        );
        Ok(Self {
            processes,
            orders,
            events,
            progress,
            printer,
            operations,
            last_errors,
            running,
        })
    }

    async fn introduce(&self, data: &Path) {
        let nodes = self
            .processes
            .iter()
            .filter(|process| process.role == Role::Node)
            .count();
        let nodes = text::count(u64::try_from(nodes).unwrap_or(u64::MAX), "node");
        let line = format!(
            "{nodes} with replicators and a client, data in {}; Ctrl-C ends it",
            data.display()
        );
        self.say(&line).await;
    }

    async fn say(&self, line: &str) {
        self.printer.print("demo", 0, line).await;
    }

    /// Prints what the processes say until there is a reason to end.
    async fn watch(&mut self, signals: &mut Signals) -> Verdict {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = signals.next() => return Verdict::Interrupted,
            };
            match event {
                Some(Event::Line {
                    child,
                    line,
                    is_error,
                }) => {
                    tokio::select! {
                        () = self.line(child, line, is_error) => {}
                        () = signals.next() => return Verdict::Interrupted,
                    }
                }
                Some(Event::Ended { child, status }) if !self.may_end(child, &status) => {
                    self.running.remove(&child);
                    return Verdict::Died(child, child::in_words(&status));
                }
                Some(Event::Ended { child, .. }) => {
                    self.running.remove(&child);
                }
                None => return Verdict::Interrupted,
            }
            if self.progress.is_done() {
                return Verdict::Done;
            }
            if self.printer.is_closed() {
                return Verdict::OutputClosed;
            }
        }
    }

    async fn line(&mut self, child: usize, line: String, is_error: bool) {
        let process = &self.processes[child];
        if !is_error {
            self.progress.observe(process.role, &line);
        }
        self.printer.print(&process.name, process.number, &line).await;
        if is_error {
            self.last_errors[child] = line;
        }
    }

    /// Only the client ends by itself, once it has submitted all that was wanted.
    fn may_end(&self, child: usize, status: &std::io::Result<std::process::ExitStatus>) -> bool {
        self.processes[child].role == Role::Client
            && self.progress.are_accepted()
            && child::is_success(status)
    }

    /// Stops all processes, prints their last words, and gives the result.
    async fn stop(mut self, verdict: Verdict, signals: &mut Signals) -> Result<(), Failure> {
        match &verdict {
            Verdict::Done => {
                let operations = text::count(self.operations.unwrap_or_default(), "operation");
                self.say(&format!("{operations} executed on all replicators; stopping"))
                    .await;
            }
            Verdict::Interrupted => self.say("stopping; Ctrl-C again kills").await,
            Verdict::Died(child, how) => {
                self.say(&format!("{} ended: {how}; stopping", self.processes[*child].name))
                    .await;
            }
            Verdict::OutputClosed => {}
        }
        self.stop_next();
        let kill_at = Instant::now() + STOP_WITHIN;
        // Ends when all who attend a child are gone, or with the third signal.
        loop {
            let dying = *self.orders.borrow() == Order::Die;
            tokio::select! {
                more = self.last_words() => if !more { break },
                () = tokio::time::sleep_until(kill_at), if !dying => { let _ = self.orders.send(Order::Die); }
                () = signals.next() => if dying { break } else { let _ = self.orders.send(Order::Die); },
            }
        }
        self.printer.finish(signals).await;
        match verdict {
            Verdict::Done | Verdict::Interrupted => Ok(()),
            Verdict::OutputClosed => Err(Failure::OutputClosed),
            Verdict::Died(child, how) => Err(self.death(child, &how)),
        }
    }

    /// Prints the next thing that a process says, or takes note of its end. False: all are gone.
    async fn last_words(&mut self) -> bool {
        match self.events.recv().await {
            Some(Event::Line {
                child,
                line,
                is_error,
            }) => self.line(child, line, is_error).await,
            Some(Event::Ended { child, .. }) => {
                self.running.remove(&child);
                self.stop_next();
            }
            None => return false,
        }
        true
    }

    /// Whoever uses the others stops before them, so that nobody complains about who is gone.
    fn stop_next(&self) {
        let Some(turn) = self
            .running
            .iter()
            .map(|&place| self.processes[place].role.stops())
            .min()
        else {
            return;
        };
        self.orders.send_if_modified(|order| {
            let next = if *order == Order::Die {
                Order::Die
            } else {
                Order::Stop(turn)
            };
            std::mem::replace(order, next) != next
        });
    }

    fn death(&self, child: usize, how: &str) -> Failure {
        let process = &self.processes[child];
        let program = child::program_of(process);
        let last = &self.last_errors[child];
        let said = if last.is_empty() {
            "its lines above may say why".to_owned()
        } else {
            format!("it said: {last}")
        };
        Failure::failed(format!(
            "{} ({program}) ended by itself: {how}; {said}",
            process.name
        ))
    }
}

/// Prints lines as a terminal or a pipe shows them best, without ever blocking a thread of the runtime.
struct Printer {
    lines: Lines,
    colour: bool,
    heartbeats: bool,
}

impl Printer {
    fn new(heartbeats: bool) -> Result<Self, Failure> {
        let stdout = std::io::stdout();
        let colour = match AutoStream::choice(&stdout) {
            ColorChoice::Never => false,
            ColorChoice::Auto => stdout.is_terminal(),
            ColorChoice::Always | ColorChoice::AlwaysAnsi => true,
        };
        let lines = Lines::stdout()
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}; see ulimit -u")))?;
        Ok(Self {
            lines,
            colour,
            heartbeats,
        })
    }

    async fn print(&self, name: &str, number: u16, line: &str) {
        if self.heartbeats || paint::kind(line) != Kind::Heartbeat {
            self.lines
                .line(paint::render(name, number, line, self.colour))
                .await;
        }
    }

    /// Whether nobody reads any more, or nothing can be written.
    fn is_closed(&self) -> bool {
        let waits = |problem: &Problem| problem.attempts > ATTEMPTS_MAX;
        self.lines.reader_is_gone() || self.lines.problem().borrow().as_ref().is_some_and(waits)
    }

    /// Waits until everything is written, or somebody asks to end.
    async fn finish(&self, signals: &mut Signals) {
        let (written, all_written) = oneshot::channel::<()>();
        let told = async {
            self.lines.once_written(move || drop(written)).await;
            let _ = all_written.await;
        };
        tokio::select! {
            () = told => {}
            () = signals.next() => {}
        }
    }
}
