//! etcd: `Put` over its own gRPC API.

mod wire;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, LocalBoxFuture};
use raftlog_load::Connection;
use tonic::transport::Channel;

use self::wire::{PutRequest, PutResponse, StatusRequest, StatusResponse};
use super::{
    Clients, Cluster, Description, Kind, Place, System, connect_each, flag, program, shared, version,
};
use crate::{
    failure::Failure,
    server::{Program, Servers, Voice},
    wait,
};

const CLIENTS: u16 = 0;
const PEERS: u16 = 1;

/// Beyond its default of 2 GiB, which large operations fill in no time.
const QUOTA_BYTES: u64 = 64 << 30;

pub(super) struct Etcd {
    program: PathBuf,
    description: Description,
}

impl Etcd {
    pub(super) fn find(name: &Path) -> Result<Self, String> {
        let program = program(name, "--etcd")?;
        Ok(Self {
            description: Description {
                system: Kind::Etcd,
                version: version(&program, "--version", "etcd Version:")?,
                operation: "Put, one key a connection, by tonic".to_owned(),
                durability: "fdatasync at a majority",
                executor: "its key-value store, on every member".to_owned(),
            },
            program,
        })
    }

    fn member(&self, place: &Place<'_>, member: u16, cluster: &str) -> Program<'_> {
        let name = format!("etcd{member}");
        let (clients, peers) = (url(place, CLIENTS, member), url(place, PEERS, member));
        let arguments = [
            flag("name", &name),
            flag("data-dir", place.folder.join(&name).display()),
            flag("listen-client-urls", &clients),
            flag("advertise-client-urls", &clients),
            flag("listen-peer-urls", &peers),
            flag("initial-advertise-peer-urls", &peers),
            flag("initial-cluster", cluster),
            flag("initial-cluster-state", "new"),
            flag("quota-backend-bytes", QUOTA_BYTES),
            flag("log-level", "warn"),
        ];
        Program::new(name, &self.program, arguments, Voice::Log)
    }
}

fn url(place: &Place<'_>, purpose: u16, member: u16) -> String {
    format!("http://{}", place.address(purpose, member))
}

impl System for Etcd {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn start<'a>(&'a self, place: Place<'a>) -> LocalBoxFuture<'a, Result<Box<dyn Cluster>, Failure>> {
        async move {
            let cluster: Vec<String> = place
                .numbers()
                .map(|member| format!("etcd{member}={}", url(&place, PEERS, member)))
                .collect();
            let cluster = cluster.join(",");
            let programs: Vec<Program<'_>> = place
                .numbers()
                .map(|member| self.member(&place, member, &cluster))
                .collect();
            let mut servers = Servers::start(&programs, place.folder)?;
            let all: Vec<String> = place
                .numbers()
                .map(|member| url(&place, CLIENTS, member))
                .collect();
            let leader =
                wait::until("etcd to have a leader", &mut servers, async || leader(&all).await).await?;
            let targets = place
                .targets(leader)
                .into_iter()
                .map(|member| url(&place, CLIENTS, member))
                .collect();
            let running = Running { targets, servers };
            Ok(Box::new(running) as Box<dyn Cluster>)
        }
        .boxed_local()
    }
}

/// The number of the member that all agree to be the leader.
async fn leader(all: &[String]) -> Result<u16, String> {
    let mut found = None;
    for (member, url) in (1..).zip(all) {
        let status: StatusResponse = wire::call(&connect(url).await?, wire::STATUS, StatusRequest {}).await?;
        let own = status.header.map_or(0, |header| header.member_id);
        if status.leader == 0 {
            return Err(format!("{url} knows none"));
        }
        if status.leader == own {
            found = Some(member);
        }
    }
    found.ok_or_else(|| "none of them leads".to_owned())
}

async fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = Channel::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let connected = endpoint.tcp_nodelay(true).connect().await;
    connected.map_err(|error| format!("{url}: {error}"))
}

struct Running {
    targets: Vec<String>,
    servers: Servers,
}

impl Cluster for Running {
    fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    fn connect(&self, connections: u16, clients: u16) -> LocalBoxFuture<'_, Result<Clients, Failure>> {
        let connect = async |number, url: &String| {
            let channel = connect(url).await?;
            let key = Bytes::from(format!("benchmark/{number}"));
            Ok(Puts { channel, key })
        };
        connect_each(&self.targets, shared(connections, clients), connect).boxed_local()
    }
}

/// Puts to one key.
struct Puts {
    channel: Channel,
    key: Bytes,
}

impl Connection for Puts {
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let request = PutRequest {
                key: self.key.clone(),
                value: operation,
            };
            let answer: Result<PutResponse, String> = wire::call(&self.channel, wire::PUT, request).await;
            answer.map(drop)
        }
        .boxed()
    }
}
