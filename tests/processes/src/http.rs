//! The least HTTP client that reads `/readyz` and its like.

use crate::address::Address;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// GET of `path`.
///
/// # Errors
/// When nobody answers within two seconds, or not in HTTP.
pub async fn get(at: impl Into<Address>, path: &str) -> Result<Answer, String> {
    let at = at.into();
    let exchange = exchange(at, path);
    let answer = timeout(Duration::from_secs(2), exchange)
        .await
        .map_err(|_| "no answer in 2 s".to_owned())?;
    let answer = answer.map_err(|error| format!("http://{at}{path}: {error}"))?;
    parse(&answer).ok_or_else(|| format!("http://{at}{path} does not answer in HTTP: {answer:?}"))
}

async fn exchange(at: Address, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from(at)).await?;
    // Version 1.0: the answer is not chunked and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}
