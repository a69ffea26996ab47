//! Where a state machine is served.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

/// `unix:///PATH` or `IP:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket at an absolute path.
    Unix(PathBuf),
    /// A TCP port. Whoever reaches it can change the state: use loopback.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no place to listen: give unix:///PATH or IP:PORT");
        match text.strip_prefix("unix://") {
            Some(path) if path.len() > 1 && path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(wrong()),
            None => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// An open one.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listen {
    pub(crate) async fn bind(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Unix(path) => {
                remove_socket(path)?;
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
    }
}

/// What a process left that is no more. Never anything but a socket.
fn remove_socket(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else than a socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen() {
        for (text, expected) in [
            ("unix:///run/s.sock", Some(Listen::Unix("/run/s.sock".into()))),
            ("127.0.0.1:7001", Some(Listen::Tcp(([127, 0, 0, 1], 7001).into()))),
            ("unix://run/s.sock", None),
            ("unix:///", None),
            ("localhost", None),
            ("", None),
        ] {
            let found: Result<Listen, String> = text.parse();
            assert_eq!(found.clone().ok(), expected, "{text}");
            if let Ok(listen) = found {
                assert_eq!(listen.to_string(), text);
            }
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let listen = Listen::Unix(folder.path().join("socket"));
        drop(listen.bind().await.unwrap());
        assert!(listen.bind().await.is_ok());
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(Listen::Unix(file.clone()).bind().await.is_err());
        assert_eq!(std::fs::read(file).unwrap(), b"precious");
    }
}
