//! How many instructions each hot path takes: the same on a busy machine as on a quiet one, so that more of them are a
//! regression. Counted by valgrind, and compared with `instructions.json`; it fails where that differs by too much.
//!
//! `cargo bench -p raftlog-server --bench instructions`; with `-- --write` it writes the file instead.

mod paths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path as FilePath;
use std::process::{Command, ExitCode};

use paths::{ALL, TIMES_MAX};
use serde_json::{Value, json};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");
/// Instructions may become more or fewer by so many hundredths. What other compilers and allocators make of it is about as much.
const DIFFERENCE_MAX_PERCENT: f64 = 3.0;
/// Each path is taken so often while it is counted, and as often before.
const TIMES: u32 = 64;
/// What valgrind is to count within, by a part of its name.
const COUNTED: &str = "within_what_is_counted";

type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => count_all().and_then(|counts| compare(&counts)),
        ["--write"] => count_all().and_then(|counts| write(&counts)),
        // What this program starts itself for, under valgrind.
        ["--take", name] => take(name),
        _ => Err("usage: cargo bench -p raftlog-server --bench instructions [-- --write]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

fn take(name: &str) -> Result<(), String> {
    let found = ALL.iter().find(|(other, _)| *other == name);
    let (_, make) = found.ok_or_else(|| format!("there is no path '{name}'"))?;
    let mut path = make();
    let times = usize::try_from(TIMES).map_or(TIMES_MAX, |times| times.min(TIMES_MAX));
    path.prepare(times);
    // Buffers have grown, and whatever is found out once is.
    path.run();
    path.prepare(times);
    within_what_is_counted(path.as_mut());
    Ok(())
}

#[inline(never)]
fn within_what_is_counted(path: &mut dyn paths::Path) {
    path.run();
}

fn count_all() -> Result<Counts, String> {
    let counts = ALL.iter().map(|(name, _)| Ok(((*name).to_owned(), count(name)?)));
    counts.collect()
}

/// Instructions of one time.
fn count(name: &str) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*{COUNTED}*"))
        .arg(program)
        .args(["--take", name])
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}; install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = collected(&said).filter(|_| output.status.success());
    let collected = collected.ok_or_else(|| format!("valgrind counts nothing for '{name}': {said}"))?;
    Ok(collected / f64::from(TIMES))
}

/// `==123== Collected : 4567`
fn collected(said: &str) -> Option<f64> {
    let (_, number) = said.lines().find_map(|line| line.split_once("Collected : "))?;
    number.trim().parse().ok().filter(|count| *count > 0.0)
}

/// The first line that a program says about its version.
fn version(program: &OsString) -> Result<String, String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().next().unwrap_or_default().trim().to_owned())
}

fn compiler() -> Result<String, String> {
    version(&std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn write(counts: &Counts) -> Result<(), String> {
    let whole = counts
        .iter()
        .map(|(name, count)| (name.clone(), json!(count.round())));
    let file = json!({
        "made_by": "cargo bench -p raftlog-server --bench instructions -- --write",
        "compiler": compiler()?,
        "valgrind": version(&"valgrind".into())?,
        "architecture": std::env::consts::ARCH,
        "instructions": whole.collect::<serde_json::Map<_, _>>(),
    });
    let text = serde_json::to_string_pretty(&file).map_err(|error| error.to_string())?;
    std::fs::write(FILE, text + "\n").map_err(|error| format!("cannot write {FILE}: {error}"))?;
    for (name, count) in counts {
        println!("{name:<44} {count:>10.0}");
    }
    Ok(())
}

fn compare(counts: &Counts) -> Result<(), String> {
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let file: Value = serde_json::from_str(&text).map_err(|error| format!("{FILE}: {error}"))?;
    let expected = |name: &str| file.get("instructions")?.get(name)?.as_f64();
    println!("{:<44} {:>10} {:>10}", "instructions", "before", "now");
    let mut differing = Vec::new();
    for (name, &now) in counts {
        let before = expected(name).ok_or_else(|| format!("{FILE} has no '{name}': write it anew"))?;
        let percent = (now / before - 1.0) * 100.0;
        println!("{name:<44} {before:>10.0} {now:>10.0} {percent:>+6.1}%");
        if percent.abs() > DIFFERENCE_MAX_PERCENT {
            differing.push(format!("{name} ({percent:+.1}%)"));
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let made_by = file.get("compiler").and_then(Value::as_str).unwrap_or("unknown");
    let file_name = FilePath::new(FILE).file_name().unwrap_or_default().display();
    Err(format!(
        "more or fewer by over {DIFFERENCE_MAX_PERCENT}%: {}; where that is meant to be, or is the work of another compiler than \
         {made_by} (this is {}), write {file_name} anew with -- --write",
        differing.join(", "),
        compiler()?
    ))
}
