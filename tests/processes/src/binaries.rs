//! The programs under test, built once per test run by the cargo that runs the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where cargo put `name` (`raft-node`, `raft-replicator` or `raftctl`).
///
/// # Panics
/// When the build fails or makes no such program.
pub fn path(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built
        .get(name)
        .unwrap_or_else(|| panic!("the workspace builds no program {name}: it builds {built:?}"))
}

fn build() -> BTreeMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--workspace",
            "--bins",
            "--message-format=json-render-diagnostics",
        ])
        .args(flags_of_profile())
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .expect("cannot run cargo");
    assert!(
        output.status.success(),
        "cargo build --workspace --bins failed, see above: {}",
        output.status
    );
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    messages.lines().filter_map(executable).collect()
}

fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_program =
        message.get("target")?.get("kind")?.get(0)? == "bin" && message.get("profile")?.get("test")? == false;
    let path = PathBuf::from(message.get("executable").filter(|_| is_program)?.as_str()?);
    let name = path.file_name()?.to_str()?.to_owned();
    Some((name, path))
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("the workspace is where it was compiled")
}

/// For the running test's own profile, read off its place: `target/[TRIPLE/]PROFILE/deps/main-HASH`.
fn flags_of_profile() -> Vec<String> {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    match profile.unwrap_or("debug") {
        // With tests, dependencies have just the features that `cargo test --workspace` has compiled them with: else most of
        // them would be compiled once more.
        "debug" => vec!["--tests".into()],
        other => vec!["--profile".into(), other.into()],
    }
}
