//! The processes of containers, where those run on this very machine, as they do with kind.

use std::fs;

use crate::command::try_run;

/// Processes in whose environment there is each of those variables, given as `NAME=VALUE`.
pub fn processes(variables: &[&str]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| has(*number, variables)).collect()
}

fn has(process: u32, variables: &[&str]) -> bool {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let given: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    !given.is_empty()
        && variables
            .iter()
            .all(|variable| given.contains(&variable.as_bytes()))
}

/// Processes with that name in the pod of another one: its containers share a network.
pub fn beside(process: u32, name: &str) -> Vec<u32> {
    let network = |process: u32| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let own = network(process);
    let named =
        |other: &u32| fs::read_to_string(format!("/proc/{other}/comm")).is_ok_and(|comm| comm.trim() == name);
    let others = processes(&[]).into_iter();
    others
        .filter(|other| own.is_some() && network(*other) == own && named(other))
        .collect()
}

/// Kills a process at once, as a crash would.
pub fn kill(process: u32) -> Result<(), String> {
    try_run("kill", &["-KILL", &process.to_string()]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_by_all_of_its_variables_and_killed() {
        let unique = format!("{}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("60")
            .env("CONTAINERS_TEST_A", &unique)
            .env("CONTAINERS_TEST_B", "b")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let ours = format!("CONTAINERS_TEST_A={unique}");
        assert_eq!(processes(&[&ours, "CONTAINERS_TEST_B=b"]), [child.id()]);
        assert!(processes(&[&ours, "CONTAINERS_TEST_B=c"]).is_empty());
        assert!(beside(std::process::id(), "sleep").contains(&child.id()));
        assert!(!beside(std::process::id(), "sleeps").contains(&child.id()));
        kill(child.id()).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
