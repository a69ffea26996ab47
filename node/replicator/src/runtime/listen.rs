//! Where to serve: a TCP port, or a unix socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use raftlog_telemetry::http;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// `IP:PORT`, or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListenAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket at an absolute path.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.len() > 1 && path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("a unix socket is given as unix:///PATH".to_owned())
            };
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| "an address is IP:PORT or unix:///PATH".to_owned())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// An open one.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Where it listens: for port 0 the one that the system chose.
    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_, SocketFile(path)) => Ok(ListenAddress::Unix(path.clone())),
        }
    }
}

/// Removes the socket's file at the end.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds it; the error names the flag it came from, and what to do.
pub(super) async fn bind(flag: &str, address: &ListenAddress) -> Result<Listener, String> {
    match address {
        ListenAddress::Tcp(address) => http::bind(flag, *address).await.map(Listener::Tcp),
        ListenAddress::Unix(path) => {
            let failed = |error: io::Error| {
                format!(
                    "cannot listen on {address} ({flag}): {error}; give a path in a folder that this user can write"
                )
            };
            remove_stale(path).await.map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            Ok(Listener::Unix(listener, SocketFile(path.clone())))
        }
    }
}

/// Removes what a killed process left: a socket where nobody answers. Anything else stays, and binding fails.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens there",
                ));
            }
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_a_socket() {
        for (text, expected) in [
            (
                "127.0.0.1:6001",
                Some(ListenAddress::Tcp("127.0.0.1:6001".parse().unwrap())),
            ),
            (
                "[::1]:6001",
                Some(ListenAddress::Tcp("[::1]:6001".parse().unwrap())),
            ),
            (
                "unix:///run/replicator.sock",
                Some(ListenAddress::Unix("/run/replicator.sock".into())),
            ),
            ("unix://", None),
            ("unix:///", None),
            ("unix://run", None),
            ("6001", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_process_left_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.sock");
        // Dropping it leaves the file, as a kill does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = ListenAddress::Unix(path.clone());
        let first = bind("--replicate-listen", &address).await.unwrap();
        let error = bind("--replicate-listen", &address).await.err().unwrap();
        assert!(error.contains("another process listens there"), "{error}");
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "not a socket").unwrap();
        assert!(bind("--replicate-listen", &address).await.is_err());
        assert!(path.exists());
    }
}
