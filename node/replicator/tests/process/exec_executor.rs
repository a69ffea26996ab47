//! The executor `exec`, with real commands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_proto::v1::ExecutorStatus;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::played_node::{Log, PlayedNode};
use crate::program::{LONG, Program, command};
use crate::runs::{self, Run};

/// A folder for scripts and what they write, and what runs them.
struct Pod {
    folder: TempDir,
    program: Option<Program>,
    more: Vec<String>,
}

impl Pod {
    /// `script` is for `sh`, which runs in the folder.
    fn start(script: &str, more: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let script = format!("cd {}\n{script}", folder.path().display());
        fs::write(folder.path().join("script"), script).unwrap();
        let mut pod = Self {
            folder,
            program: None,
            more: more.iter().map(|&word| word.to_owned()).collect(),
        };
        pod.start_replicator();
        pod
    }

    /// Starts a process of many operations.
    fn start_lines(script: &str, more: &[&str]) -> Self {
        Self::start(script, &[&["--exec-mode", "lines"], more].concat())
    }

    fn start_replicator(&mut self) {
        let mut command = command(&self.path("data"));
        command.args(["--executor", "exec", "--retry-backoff", "1ms..20ms"]);
        command.args(&self.more);
        command.args(["--", "sh"]).arg(self.path("script"));
        self.program = Some(Program::spawn(command));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&mut self) -> &mut Program {
        self.program.as_mut().unwrap()
    }

    /// What scripts wrote there; empty where none did yet.
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// One number a line.
    fn numbers(&self, name: &str) -> Vec<u64> {
        self.text(name)
            .lines()
            .map(|line| line.parse().unwrap())
            .collect()
    }

    async fn node(&mut self, log: &Log) -> PlayedNode {
        let commit = log.0.len() as u64;
        let (node, position) = PlayedNode::start(self.program().clients, commit).await;
        let held = usize::try_from(position.last.unwrap_or_default().index).unwrap();
        for batch in log.0[held..].chunks(100) {
            node.feed(batch, commit).await;
        }
        node
    }
}

/// Waits for what no bell rings for.
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LONG, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs; one that has ended and that nobody has waited for does not.
fn runs(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != Some('Z'))
}

/// Processes whose parent that one is, with their states.
fn children(parent: u32) -> Vec<(u32, char)> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let children = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut words = stat.rsplit_once(") ")?.1.split(' ');
        let state = words.next()?.chars().next()?;
        (words.next()?.parse() == Ok(parent)).then_some((pid, state))
    });
    children.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_operation_on_stdin_and_the_rest_in_its_environment() {
    let mut pod = Pod::start(
        r#"echo "$RAFTLOG_INDEX $RAFTLOG_TERM $RAFTLOG_CLUSTER_ID $RAFTLOG_IDEMPOTENCY_KEY $RAFTLOG_NODE" >> calls
           cat > input-$RAFTLOG_INDEX
           printf 'did %s' $RAFTLOG_INDEX; echo noise >&2"#,
        &[],
    );
    let any_bytes: Vec<u8> = (0..=255).collect();
    let longest = vec![7; 1 << 20];
    let log = Log::of([any_bytes.clone(), longest.clone(), b"x".to_vec()]);
    let mut node = pod.node(&log).await;
    let results = node.results(&[1, 2, 3]).await;
    let results: Vec<_> = results.iter().map(|result| &result.result[..]).collect();
    assert_eq!(results, [b"did 1", b"did 2", b"did 3"]);
    let line = |index| format!("{index} 1 00000000000000c1 00000000000000c1/{index} 1");
    assert!(pod.text("calls").lines().eq((1..=3).map(line)));
    for (index, body) in [(1, any_bytes), (2, longest), (3, b"x".to_vec())] {
        assert!(fs::read(pod.path(&format!("input-{index}"))).unwrap() == body);
    }
    let state = node.take_snapshot(1).await;
    assert_eq!(
        &state.data[..],
        [1, 3],
        "a snapshot holds the index, and no state"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_need_not_read_and_may_write_more_than_is_kept() {
    let mut pod = Pod::start("exec head -c 1000000 /dev/zero", &[]);
    let log = Log::of(std::iter::repeat_n(vec![7; 1 << 20], 3));
    let mut node = pod.node(&log).await;
    for result in node.results(&[1, 2, 3]).await {
        assert!(
            result.result == vec![0; RESULT_BYTES_MAX],
            "{}",
            result.result.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_command_ends_decides_and_its_last_words_are_told() {
    let mut pod = Pod::start(
        r#"echo $RAFTLOG_INDEX >> calls
           [ -e right ] && exit 0
           times=$(grep -c "^$RAFTLOG_INDEX$" calls)
           case $RAFTLOG_INDEX-$times in
           2-1) exit 1;;
           3-1) kill -9 $$;;
           4-1) exit 255;;
           5-*) echo first >&2; echo last words >&2; exit 65;;
           esac"#,
        &[],
    );
    let log = Log::numbered(6);
    let mut node = pod.node(&log).await;
    let status = node.executor(|status| status.stopped).await;
    let failure = status.failure.unwrap();
    assert_eq!((failure.index, failure.attempts), (5, 1));
    assert_eq!(failure.message, "exit code 65: last words");
    assert_eq!(pod.numbers("calls"), [1, 2, 2, 3, 3, 4, 4, 5]);
    assert_eq!(pod.program().get("/readyz").0, 200);
    assert!(pod.program().terminate().success());
    fs::write(pod.path("right"), "").unwrap();
    pod.start_replicator();
    let mut node = pod.node(&log).await;
    node.progress(|progress| progress.executed_index == 6).await;
    assert_eq!(pod.numbers("calls"), [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_is_told_and_tried_again() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let mut command = command(&folder.path().join("data"));
    command.args(["--executor", "exec", "--retry-backoff", "1ms..20ms", "--"]);
    command.arg(&missing);
    let program = Program::spawn(command);
    let (mut node, _) = PlayedNode::start(program.clients, 1).await;
    node.feed(&Log::numbered(1).0, 1).await;
    let status = node.executor(|status| status.failure.is_some()).await;
    let why = status.failure.unwrap().message;
    assert!(why.contains("cannot run") && why.contains("missing"), "{why}");
    // It comes when it is written.
    fs::write(&missing, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&missing, fs::Permissions::from_mode(0o755)).unwrap();
    node.progress(|progress| progress.executed_index == 1).await;
}

/// What starts more processes than a command should: one in the background, and one that leaves its group and session and loses its parent.
const FAMILY: &str = r#"echo $$ >> pids
   sleep 1000 & echo $! >> pids
   setsid sh -c 'sleep 1000 & echo $! >> pids; echo $$ >> pids; exit' &
   setsid sh -c '(trap "" TERM HUP; echo $$ > /dev/null; exec sleep 1000) & echo $! >> pids'
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_too_long_is_killed_with_all_that_it_started_before_it_is_run_again() {
    // Each looks whether anything of the one before still runs.
    let script = format!(
        r"for pid in $(cat pids); do kill -0 $pid 2>> /dev/null && echo $pid >> overlaps; done
           {FAMILY}
           echo this takes long >&2
           [ $(wc -l < pids) -lt 15 ] && sleep 1000
           exit 0"
    );
    let mut pod = Pod::start(&script, &["--attempt-timeout", "1s"]);
    let mut node = pod.node(&Log::numbered(1)).await;
    let expected = "it is killed, as it has not ended within 1s: this takes long";
    let is_told = |status: &ExecutorStatus| status.failure.as_ref().is_some_and(|it| it.message == expected);
    node.executor(is_told).await;
    node.progress(|progress| progress.executed_index == 1).await;
    assert_eq!(pod.text("overlaps"), "");
    // What one that ended well leaves behind is killed as well.
    let pids = pod.numbers("pids");
    assert!(pids.len() >= 15, "{pids:?}");
    assert!(pids.iter().all(|pid| !runs(*pid)), "{pids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_command_started_outlives_the_replicator_however_it_ends() {
    let script = format!("{FAMILY}\nsleep 1000");
    for lines in [false, true] {
        for end in ["-TERM", "-KILL", "guard"] {
            let more: &[&str] = if lines { &["--exec-mode", "lines"] } else { &[] };
            let mut pod = Pod::start(&script, more);
            let _node = pod.node(&Log::numbered(1)).await;
            wait("the family", || pod.numbers("pids").len() == 5);
            let program = pod.program.take().unwrap();
            let id = program.id();
            let guard = children(id)[0].0;
            let target = if end == "guard" { guard } else { id };
            let signal = if end == "guard" { "-KILL" } else { end };
            let killed = Command::new("kill").args([signal, &target.to_string()]).status();
            assert!(killed.unwrap().success());
            let pids = pod.numbers("pids");
            // A guard that is killed cannot find what has left its group.
            let found = if end == "guard" { &pids[..2] } else { &pids[..] };
            wait(&format!("the end after {end}: {pids:?}"), || {
                found.iter().all(|pid| !runs(*pid))
            });
            drop(program);
            for pid in pids.iter().filter(|pid| runs(**pid)) {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
        }
    }
}

/// A replicator that is process 1 gets every process that loses its parent.
#[tokio::test(flavor = "multi_thread")]
async fn as_process_1_it_leaves_no_zombies() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("RAFT_TEST_REQUIRE_ALL").is_none(), "needs root");
        return eprintln!("skipped: needs root");
    }
    let folder = TempDir::new().unwrap();
    let inner = command(&folder.path().join("data"));
    let mut outer = Command::new("unshare");
    outer.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    outer.arg(inner.get_program()).args(inner.get_args());
    outer.args(["--executor", "exec", "--", "sh", "-c"]);
    // Each leaves one that ends soon, one that has ended, and one that would stay.
    outer.arg("(sleep 0.01 &); (true &); (setsid sleep 1000 &); exit 0");
    outer
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped());
    let program = Program::spawn(outer);
    let replicator = children(program.id())[0].0;
    let (mut node, _) = PlayedNode::start(program.clients, 30).await;
    node.feed(&Log::numbered(30).0, 30).await;
    node.progress(|progress| progress.executed_index == 30).await;
    let left = children(replicator);
    assert!(left.is_empty(), "{left:?}");
}

/// Answers as lines are to be answered; what is in `$act` has the last word.
const LINES: &str = r#"echo $$ >> starts
   answer() { echo "{\"index\":$1,\"ok\":true,\"result\":\"$(printf 'did %s' $1 | base64)\"}"; }
   while read -r line; do
     index=${line#*\"index\":}; index=${index%%,*}
     echo "$line" >> lines; echo $index >> calls
     times=$(grep -c "^$index$" calls)
     act $index-$times
   done
"#;

fn script(act: &str) -> String {
    format!("act() {{\n index=${{1%-*}}\n case $1 in\n{act}\n *) answer $index;;\n esac\n}}\n{LINES}")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_is_given_a_line_for_each_operation_and_answers_with_one() {
    let mut pod = Pod::start_lines(&script(""), &[]);
    let mut log = Log::of([&b"\x00\xff\n"[..], b"two", b"three"]);
    let mut node = pod.node(&log).await;
    let results = node.results(&[1, 2, 3]).await;
    let results: Vec<_> = results.iter().map(|result| &result.result[..]).collect();
    assert_eq!(results, [b"did 1", b"did 2", b"did 3"]);
    let text = pod.text("lines");
    let first = r#"{"index":1,"term":1,"key":"00000000000000c1/1","operation":"AP8K"}"#;
    assert_eq!(text.lines().next(), Some(first));
    assert_eq!(pod.numbers("starts").len(), 1);
    // One that ends while there is nothing to do has failed at nothing.
    let process = pod.numbers("starts")[0].to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &process])
            .status()
            .unwrap()
            .success()
    );
    wait("its end", || !Path::new(&format!("/proc/{process}")).exists());
    let guard_has_ended = |id| children(id).iter().all(|(_, state)| *state == 'Z');
    let id = pod.program().id();
    wait("the end of its guard", || guard_has_ended(id));
    log.push(&b"four"[..]);
    node.feed(&log.0[3..], 4).await;
    node.progress(|progress| progress.executed_index == 4).await;
    assert_eq!(pod.numbers("starts").len(), 2);
    let metrics = pod.program().get("/metrics").1;
    assert!(
        metrics.contains("\nraft_replicator_attempts_failed_total 0\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_fails_in_any_way_goes_on_with_the_operation_without_an_answer() {
    let act = r#"2-1) exit 3;;
       3-1) echo "{\"index\":4,\"ok\":true}";;
       4-1) echo what;;
       5-1) sleep 1000;;
       6-1) echo "{\"index\":6,\"error\":\"busy\"}";;
       7-1) answer 7; answer 7;;
       9-1) kill -9 $$;;
       10-1) head -c 3000000 /dev/zero | tr '\0' x; echo;;"#;
    let mut pod = Pod::start_lines(&script(act), &["--attempt-timeout", "1s"]);
    let mut node = pod.node(&Log::numbered(12)).await;
    node.progress(|progress| progress.executed_index == 12).await;
    let calls = pod.numbers("calls");
    let all = Run {
        executed_before: 0,
        indexes: calls.clone(),
    };
    runs::check(&[all]).unwrap();
    for (index, times) in [
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 2),
        (5, 2),
        (6, 2),
        (9, 2),
        (10, 2),
        (12, 1),
    ] {
        let found = calls.iter().filter(|call| **call == index).count();
        assert_eq!(found, times, "{index} in {calls:?}");
    }
    // All but 'busy', which it has said and lives on.
    assert_eq!(pod.numbers("starts").len(), 8, "{calls:?}");
    assert!(pod.numbers("starts")[..7].iter().all(|pid| !runs(*pid)));
}

/// Without its guard, nobody finds what has moved to a session of its own; it has the output of the process open.
#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_a_killed_guard_holds_up_nothing() {
    let act = r"2-1) setsid sh -c 'echo $$ > left; exec sleep 600' & while [ ! -s left ]; do :; done; kill -KILL $PPID; sleep 600;;";
    let mut pod = Pod::start_lines(&script(act), &[]);
    let mut node = pod.node(&Log::numbered(3)).await;
    node.progress(|progress| progress.executed_index == 3).await;
    assert_eq!(pod.numbers("calls"), [1, 2, 2, 3]);
    let left = pod.numbers("left")[0];
    assert!(runs(left), "it has the output open");
    let killed = Command::new("kill").args(["-KILL", &left.to_string()]).status();
    assert!(killed.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_says_that_an_operation_never_will_be_executed_and_what_died_of() {
    let act = r#"2-*) echo "{\"index\":2,\"error\":\"no such account\",\"retry\":false}";;
       3-*) echo out of luck >&2; exit 4;;"#;
    let more = ["--on-failure", "skip", "--attempts-max", "2"];
    let mut pod = Pod::start_lines(&script(act), &more);
    let mut node = pod.node(&Log::numbered(4)).await;
    node.progress(|progress| progress.executed_index == 4).await;
    assert_eq!(pod.numbers("calls"), [1, 2, 3, 3, 4]);
    let letters = fs::read_to_string(pod.path("data/dead-letters.jsonl")).unwrap();
    let errors: Vec<String> = letters
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["error"].to_string())
        .collect();
    assert_eq!(
        errors,
        [
            r#""no such account""#,
            r#""it ended without an answer, by exit code 4: out of luck""#
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_only_what_was_not_written_down_is_repeated_and_nothing_is_lost() {
    let seed = std::env::var("RAFT_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("RAFT_TEST_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for lines in [false, true] {
        // The file that is written is of the process that is there when it is.
        let act = "*) echo $index >> calls-$(cat run); answer $index;;";
        let mut pod = if lines {
            Pod::start_lines(&script(act), &[])
        } else {
            Pod::start("echo $RAFTLOG_INDEX >> calls-$(cat run)", &[])
        };
        let count = if lines { 500 } else { 200 };
        let log = Log::numbered(count);
        let mut executed_before = Vec::new();
        for run in 0..6 {
            fs::write(pod.path("run"), run.to_string()).unwrap();
            if run > 0 {
                pod.start_replicator();
            }
            let (mut node, position) = PlayedNode::start(pod.program().clients, count).await;
            executed_before.push(position.executed.unwrap_or_default().index);
            let held = usize::try_from(position.last.unwrap_or_default().index).unwrap();
            node.feed(&log.0[held..], count).await;
            if run == 5 {
                node.progress(|progress| progress.executed_index == count).await;
                break;
            }
            let life = Duration::from_millis(random.random_range(0..500));
            let _ = tokio::time::timeout(life, node.progress(|_| false)).await;
            // It starts no more while it is looked at.
            let id = pod.program().id();
            let stopped = Command::new("kill").args(["-STOP", &id.to_string()]).status();
            assert!(stopped.unwrap().success());
            let guards = children(id);
            pod.program.take().unwrap().kill();
            // Nothing of it may write into the next one's file.
            for (guard, _) in guards {
                wait("the guard's end", || !runs(guard.into()));
            }
        }
        let runs: Vec<Run> = executed_before
            .iter()
            .enumerate()
            .map(|(run, &executed_before)| Run {
                executed_before,
                indexes: pod.numbers(&format!("calls-{run}")),
            })
            .collect();
        runs::check(&runs).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}: {runs:?}"));
        let last = runs.last().unwrap().indexes.last();
        assert!(last.is_none_or(|last| *last == count), "seed {seed}");
    }
}
