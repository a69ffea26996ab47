//! Looks at nodes all the time and says what changes: `look-at-nodes NAME=ADDRESS...`, with addresses of their HTTP ports.
//!
//! Each line is `MILLISECONDS NAME CODE ROLE TERM`: the time since the Unix epoch, the answer of `/readyz` (0 where there is
//! none), and what `/status` tells. It runs until it is killed, in the network of a machine that may be cut off: what it says comes
//! by a pipe.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Between two looks at a node.
const INTERVAL: Duration = Duration::from_millis(20);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a node says of itself.
type Look = (u16, String, u64);

fn main() -> Result<(), String> {
    let nodes = std::env::args().skip(1).map(|argument| {
        let (name, address) = argument.split_once('=').ok_or("give NAME=ADDRESS")?;
        let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
        Ok((name.to_owned(), address))
    });
    let nodes: Vec<(String, SocketAddr)> = nodes.collect::<Result<_, String>>()?;
    let stdout = Mutex::new(io::stdout());
    thread::scope(|scope| {
        for (name, address) in &nodes {
            scope.spawn(|| watch(name, *address, &stdout));
        }
    });
    Ok(())
}

/// Until nobody listens any more.
fn watch(name: &str, address: SocketAddr, stdout: &Mutex<io::Stdout>) {
    let mut before = None;
    loop {
        let now = look(address);
        if before.as_ref() != Some(&now) {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let (code, role, term) = &now;
            let Ok(mut stdout) = stdout.lock() else { return };
            let said = writeln!(stdout, "{} {name} {code} {role} {term}", at.as_millis());
            if said.and_then(|()| stdout.flush()).is_err() {
                return;
            }
            before = Some(now);
        }
        thread::sleep(INTERVAL);
    }
}

fn look(address: SocketAddr) -> Look {
    let nothing = || (0, "-".to_owned(), 0);
    let (Ok((code, _)), Ok((_, body))) = (get(address, "/readyz"), get(address, "/status")) else {
        return nothing();
    };
    let status: Value = serde_json::from_str(&body).unwrap_or_default();
    let role = status["role"].as_str().unwrap_or("-").to_owned();
    (code, role, status["term"].as_u64().unwrap_or_default())
}

fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: node\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let unexpected = || io::Error::other(format!("unexpected answer: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unexpected)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or_else(unexpected)?, body.to_owned()))
}
