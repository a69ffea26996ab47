//! The executor `http`: each operation is a POST to one URL, with a key by which the endpoint can tell a repeat.

mod answer;

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use raftlog_proto::RESULT_BYTES_MAX;
use reqwest::header::{self, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, Url, redirect, retry};
use tokio::time::{Instant, timeout_at};

use super::calling::{Call, Endpoint, Executed, Failed, Outcome, said};
use answer::{Head, Meaning, meaning};

/// No connection takes longer to make.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// What is read of the body of an answer that says no, and for how long: its first line goes into messages.
const REASON_BYTES_MAX: usize = 4 << 10;
const REASON_TIME_MAX: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!("raft-replicator/", env!("CARGO_PKG_VERSION"));
/// Operations are bytes, whatever they mean.
const CONTENT_TYPE: &str = "application/octet-stream";
const CLOUD_EVENT_TYPE: &str = "io.raftlog.operation";

/// One URL, and at most one connection to it.
pub(in crate::runtime) struct Http {
    client: Client,
    url: Url,
    /// Without a password.
    shown: String,
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the endpoint {}", self.shown)
    }
}

/// What there is of a body.
enum Body {
    /// All of it, or as much as was to be read.
    Read(Bytes),
    /// It broke off, or took too long.
    Broken,
}

impl Http {
    /// The error is one line.
    pub(in crate::runtime) fn new(url: Url) -> Result<Self, String> {
        // One try is one attempt, at that URL and no other, on that way and no other.
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(1)
            .connect_timeout(CONNECT_MAX)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| format!("cannot call --http-url: {}", chain(&error)))?;
        let mut shown = url.clone();
        // What goes into lines and statuses has no secrets: neither who calls, nor a token. Fails where there can be none.
        let _ = (shown.set_username(""), shown.set_password(None));
        shown.set_query(None);
        Ok(Self {
            client,
            shown: shown.to_string(),
            url,
        })
    }

    /// The operation as a CloudEvent in binary mode: its attributes are headers, its data are the body.
    fn request(&self, call: &Call<'_>) -> RequestBuilder {
        let (operation, key) = (call.operation, call.key());
        let header = HeaderName::from_static;
        let leader_term = call.leader_term.into_iter().flat_map(|term| {
            let names = ["raftlog-leader-term", "ce-raftlogleaderterm"];
            names.map(|name| (header(name), HeaderValue::from(term)))
        });
        self.client
            .post(self.url.clone())
            .header(header("idempotency-key"), &key)
            .header(header("raftlog-index"), operation.index)
            .header(header("raftlog-term"), operation.term)
            .header(header("ce-specversion"), "1.0")
            .header(header("ce-id"), &key)
            .header(header("ce-source"), format!("/raftlog/{}", call.cluster))
            .header(header("ce-type"), CLOUD_EVENT_TYPE)
            .header(header("ce-raftlogindex"), operation.index)
            .header(header("ce-raftlogterm"), operation.term)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .headers(leader_term.collect())
            .body(operation.data.clone())
    }
}

impl Endpoint for Http {
    async fn attempt(&mut self, call: &Call<'_>) -> Outcome {
        let until = Instant::now() + call.timeout;
        let sent = timeout_at(until, self.request(call).send()).await;
        let Ok(sent) = sent else {
            return Err(Failed::unreached(format!("no answer within {:?}", call.timeout)));
        };
        let response = sent.map_err(|error| Failed::unreached(format!("no answer: {}", chain(&error))))?;
        let (kind, what) = match meaning(head(&response), call.leader_term.is_some(), SystemTime::now()) {
            // That it is done was said, so it is not done again for what else there was to say.
            Meaning::Executed => {
                let result = match body(response, RESULT_BYTES_MAX, until).await {
                    Body::Read(result) => Some(result),
                    Body::Broken => None,
                };
                return Ok(Executed { result });
            }
            Meaning::Failed(kind, what) => (kind, what),
        };
        let status = response.status();
        let what = match what {
            Some(what) => what,
            None => reason(response, until).await,
        };
        let why = match what.as_str() {
            "" => status.to_string(),
            what => format!("{status}: {what}"),
        };
        Err(Failed { why, kind })
    }

    /// An attempt that is dropped closes its connection.
    async fn end(&mut self) {}
}

fn head(response: &Response) -> Head<'_> {
    let header = |name| response.headers().get(name)?.to_str().ok();
    Head {
        status: response.status().as_u16(),
        retry_after: header(header::RETRY_AFTER),
        location: header(header::LOCATION),
    }
}

/// As much of the body as is wanted. With more to come the connection is closed, and otherwise used again.
async fn body(mut response: Response, bytes_max: usize, until: Instant) -> Body {
    let mut read = Vec::new();
    loop {
        match timeout_at(until, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = bytes_max.saturating_sub(read.len());
                read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() > room {
                    return Body::Read(read.into());
                }
            }
            Ok(Ok(None)) => return Body::Read(read.into()),
            Ok(Err(_)) | Err(_) => return Body::Broken,
        }
    }
}

/// The first line of what an endpoint has to say.
async fn reason(response: Response, until: Instant) -> String {
    let until = until.min(Instant::now() + REASON_TIME_MAX);
    match body(response, REASON_BYTES_MAX, until).await {
        Body::Read(text) => said(&text),
        Body::Broken => String::new(),
    }
}

/// An error and what it comes from; the outer ones say little, and name a URL that may have a password in it.
fn chain(error: &reqwest::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        // Some say what their source says.
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        next = source.source();
    }
    if said.is_empty() {
        return "it broke off".to_owned();
    }
    said.join(": ")
}
