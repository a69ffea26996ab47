//! Follows what containers say, from their beginning on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::wait::eventually;

/// The lines of one container.
#[derive(Debug)]
pub struct Log {
    name: String,
    lines: Arc<Mutex<Vec<String>>>,
    kubectl: Child,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    /// Of that container in `of`, such as `pod/demo-0`, as soon as it has begun.
    ///
    /// # Panics
    /// When it does not begin.
    pub fn follow(namespace: &str, of: &str, container: &str) -> Self {
        let name = format!("{container} of {of}");
        eventually(&format!("the log of {name}"), || {
            let arguments = ["logs", "--namespace", namespace, of, "--container", container];
            crate::command::try_run("kubectl", &arguments).map(drop)
        });
        let mut kubectl = Command::new("kubectl")
            .args([
                "logs",
                "--follow",
                "--namespace",
                namespace,
                of,
                "--container",
                container,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run kubectl: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = kubectl.stdout.take().map(BufReader::new);
        let kept = Arc::clone(&lines);
        let reader = stdout.map(|stdout| {
            thread::spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            })
        });
        Self {
            name,
            lines,
            kubectl,
            reader,
        }
    }

    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What there is of it so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // It may have ended with its container.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
