//! NATS JetStream: a stream with a replica on every member, published to by its own client.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, Context, context::ContextBuilder, stream::StorageType},
};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, LocalBoxFuture};
use raftlog_load::Connection;

use super::{Clients, Cluster, Description, Kind, Place, System, connect_each, program, shared, version};
use crate::{
    failure::Failure,
    server::{Program, Servers, Voice},
    wait,
};

const CLIENTS: u16 = 0;
const ROUTES: u16 = 1;

const STREAM: &str = "benchmark";
const SUBJECT: &str = "benchmark.operations";
/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Nats {
    program: PathBuf,
    description: Description,
}

impl Nats {
    pub(super) fn find(kind: Kind, name: &Path) -> Result<Self, String> {
        let program = program(name, "--nats-server")?;
        let durability = match kind {
            Kind::NatsDefaultSync => {
                "memory of a majority; synced every 2 minutes, so that a power failure loses what was acknowledged"
            }
            _ => "sync at a majority (sync_interval: always)",
        };
        Ok(Self {
            description: Description {
                system: kind,
                version: version(&program, "--version", "nats-server:")?,
                operation: "JetStream publish, one subject, by async-nats".to_owned(),
                durability,
                executor: "none: the stream keeps messages in files".to_owned(),
            },
            program,
        })
    }

    fn member(&self, place: &Place<'_>, member: u16) -> Result<Program<'_>, Failure> {
        let name = format!("nats{member}");
        let path = place.folder.join(format!("{name}.conf"));
        let always = self.description.system == Kind::Nats;
        let written = fs::write(&path, configuration(place, member, &name, always));
        written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        let arguments = ["--config".into(), path.into_os_string()];
        Ok(Program::new(name, &self.program, arguments, Voice::Log))
    }
}

fn configuration(place: &Place<'_>, member: u16, name: &str, always: bool) -> String {
    let sync = if always { "sync_interval: always" } else { "" };
    let (clients, data) = (place.address(CLIENTS, member), place.folder.join(name));
    let alone = format!(
        "server_name: {name}\nlisten: \"{clients}\"\njetstream {{\n  store_dir: \"{}\"\n  {sync}\n}}\n",
        data.display()
    );
    if place.members == 1 {
        return alone;
    }
    let routes: Vec<String> = place
        .numbers()
        .map(|peer| format!("\"nats://{}\"", place.address(ROUTES, peer)))
        .collect();
    let (own, routes) = (place.address(ROUTES, member), routes.join(", "));
    format!("{alone}cluster {{\n  name: {STREAM}\n  listen: \"{own}\"\n  routes: [{routes}]\n}}\n")
}

impl System for Nats {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn start<'a>(&'a self, place: Place<'a>) -> LocalBoxFuture<'a, Result<Box<dyn Cluster>, Failure>> {
        async move {
            let programs: Vec<Program<'_>> = place
                .numbers()
                .map(|member| self.member(&place, member))
                .collect::<Result<_, _>>()?;
            let mut servers = Servers::start(&programs, place.folder)?;
            let any = place.address(CLIENTS, 1);
            let client = wait::until("NATS to answer", &mut servers, async || connect(&any).await).await?;
            let context = jetstream::new(client);
            wait::until("JetStream to make a stream", &mut servers, async || {
                make_stream(&context, place.members).await
            })
            .await?;
            let leader = wait::until("all replicas of the stream", &mut servers, async || {
                leader(&context, place.members).await
            })
            .await?;
            let targets = place
                .targets(leader)
                .into_iter()
                .map(|member| place.address(CLIENTS, member))
                .collect();
            let running = Running { targets, servers };
            Ok(Box::new(running) as Box<dyn Cluster>)
        }
        .boxed_local()
    }
}

/// Stays with that server, whatever others it hears of.
async fn connect(address: &str) -> Result<Client, String> {
    let options = ConnectOptions::new().ignore_discovered_servers();
    let connected = options.connect(format!("nats://{address}")).await;
    connected.map_err(|error| format!("{address}: {error}"))
}

async fn make_stream(context: &Context, members: u16) -> Result<(), String> {
    let configuration = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        storage: StorageType::File,
        num_replicas: members.into(),
        ..Default::default()
    };
    let made = context.get_or_create_stream(configuration).await;
    made.map(drop).map_err(|error| error.to_string())
}

/// The number of the member that leads the stream, once all replicas are there.
async fn leader(context: &Context, members: u16) -> Result<u16, String> {
    let stream = context
        .get_stream(STREAM)
        .await
        .map_err(|error| error.to_string())?;
    let Some(cluster) = stream.cached_info().cluster.as_ref().filter(|_| members > 1) else {
        return if members == 1 {
            Ok(1)
        } else {
            Err("it has no cluster".to_owned())
        };
    };
    let current = cluster.replicas.iter().filter(|replica| replica.current).count();
    if current + 1 < usize::from(members) {
        return Err(format!("{current} of {} are current", members - 1));
    }
    let leader = cluster.leader.as_deref().ok_or("it has no leader")?;
    let number = leader.strip_prefix("nats").and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("{leader} leads"))
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
        let connect = async |_, address: &String| {
            let client = connect(address).await?;
            Ok(Publishes(ContextBuilder::new().timeout(PATIENCE).build(client)))
        };
        connect_each(&self.targets, shared(connections, clients), connect).boxed_local()
    }
}

struct Publishes(Context);

impl Connection for Publishes {
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let sent = self.0.publish(SUBJECT, operation).await;
            let acknowledgement = sent.map_err(|error| error.to_string())?;
            acknowledgement.await.map(drop).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use processes::ports::Ports;

    use super::*;
    use crate::arguments::Target;

    #[test]
    fn a_configuration_says_whether_everything_is_synced() {
        let (ports, folder) = (Ports::claim(), Path::new("/data"));
        let place = |members| Place {
            folder,
            ports: &ports,
            members,
            target: Target::Leader,
            snapshot_every: None,
        };
        let five = configuration(&place(5), 2, "nats2", true);
        assert!(five.contains("  sync_interval: always\n"), "{five}");
        assert!(five.contains("store_dir: \"/data/nats2\""), "{five}");
        assert_eq!(five.matches("nats://").count(), 5, "{five}");
        let one = configuration(&place(1), 1, "nats1", false);
        assert!(
            !one.contains("sync_interval") && !one.contains("cluster"),
            "{one}"
        );
    }
}
