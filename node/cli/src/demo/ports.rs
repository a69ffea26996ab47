//! Whether the ports that a demo needs are free.

use std::net::{Ipv4Addr, TcpListener};

use super::plan::Process;

/// Fails with one line that names the first port that is taken, and the process that needs it.
pub(super) fn check(processes: &[Process]) -> Result<(), String> {
    // All at once, so that two processes of the demo cannot want the same one either.
    let mut held = Vec::new();
    for process in processes {
        for &port in &process.ports {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(listener) => held.push(listener),
                Err(error) => {
                    return Err(format!(
                        "{} cannot listen on 127.0.0.1:{port}: {error}; stop what uses that port, or choose another --base-port",
                        process.name
                    ));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{demo::plan::Role, program::Program};

    #[test]
    fn a_busy_port_is_named_with_who_needs_it() {
        let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = busy.local_addr().unwrap().port();
        let process = Process {
            name: "node3".to_owned(),
            role: Role::Node,
            number: 3,
            program: Program::RaftNode,
            arguments: Vec::new(),
            ports: vec![port],
        };
        let error = check(std::slice::from_ref(&process)).unwrap_err();
        assert!(
            error.starts_with(&format!("node3 cannot listen on 127.0.0.1:{port}")),
            "{error}"
        );
        drop(busy);
        check(&[process]).unwrap();
    }
}
