//! Where a node or a replicator listens.

use std::fmt;

/// The most endpoints that one list may name.
pub const ENDPOINTS_MAX: usize = 256;

/// `HOST:PORT` of one node or replicator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(String);

impl Endpoint {
    /// Reads `HOST:PORT`; `http://` before it is allowed, and an IPv6 host stands in brackets.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split(text)?;
        let port = parse_port(text, port)?;
        Ok(Self(format!("{host}:{port}")))
    }

    /// Reads endpoints separated by commas, where a range of ports stands for one endpoint each:
    /// `127.0.0.1:5001..5003,other:5001`. Repeated ones are kept once. At most [`ENDPOINTS_MAX`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut endpoints = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (host, ports) = split(item)?;
            let (first, last) = match ports.split_once("..") {
                Some((first, last)) => (parse_port(item, first)?, parse_port(item, last)?),
                None => (parse_port(item, ports)?, parse_port(item, ports)?),
            };
            if first > last {
                return Err(format!(
                    "{item:?} is an empty range of ports: write the lower one first"
                ));
            }
            for port in first..=last {
                let endpoint = Self(format!("{host}:{port}"));
                if !endpoints.contains(&endpoint) {
                    endpoints.push(endpoint);
                }
                if endpoints.len() > ENDPOINTS_MAX {
                    return Err(format!(
                        "{text:?} names more than {ENDPOINTS_MAX} endpoints: name fewer"
                    ));
                }
            }
        }
        if endpoints.is_empty() {
            return Err("an empty list of endpoints: name at least one HOST:PORT".to_owned());
        }
        Ok(endpoints)
    }

    /// `HOST:PORT`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a gRPC channel connects to.
    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.0)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The host, and what stands after its colon.
fn split(text: &str) -> Result<(&str, &str), String> {
    let wanted = || format!("{text:?} is not HOST:PORT, for example 127.0.0.1:5001");
    let bare = text.trim().trim_start_matches("http://").trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':').ok_or_else(wanted)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let inner = if bracketed { &host[1..host.len() - 1] } else { host };
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.')
            || (bracketed && matches!(byte, b':' | b'%'))
    };
    if inner.is_empty() || !inner.bytes().all(allowed) {
        return Err(wanted());
    }
    Ok((host, port))
}

fn parse_port(item: &str, port: &str) -> Result<u16, String> {
    match port.parse() {
        Ok(0) | Err(_) => Err(format!("{item:?}: {port:?} is not a port between 1 and 65535")),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(endpoints: &[Endpoint]) -> Vec<&str> {
        endpoints.iter().map(Endpoint::as_str).collect()
    }

    #[test]
    fn lists() {
        for (text, expected) in [
            ("127.0.0.1:5001", vec!["127.0.0.1:5001"]),
            (
                "127.0.0.1:5001..5003",
                vec!["127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"],
            ),
            ("a:1, b:2,,", vec!["a:1", "b:2"]),
            ("a:1..2,a:2..3", vec!["a:1", "a:2", "a:3"]),
            (
                "http://demo-0.demo-peers.default.svc:5001/",
                vec!["demo-0.demo-peers.default.svc:5001"],
            ),
            ("[::1]:5001", vec!["[::1]:5001"]),
            ("a:65535..65535", vec!["a:65535"]),
        ] {
            let endpoints = Endpoint::parse_list(text).unwrap();
            assert_eq!(strings(&endpoints), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_list() {
        for text in [
            "", ",", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:3..2", "a:1..", "a:..2", "a b:1",
            "::1:5001", "a/b:1", "é:1", "a:1..300", "[]:1",
        ] {
            let error = Endpoint::parse_list(text).unwrap_err();
            assert!(!error.contains('\n') && !error.is_empty(), "{text}: {error}");
        }
        assert!(
            Endpoint::parse("a:1..2").is_err(),
            "a single endpoint has one port"
        );
    }
}
