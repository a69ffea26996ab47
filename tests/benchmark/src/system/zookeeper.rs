//! ZooKeeper: `setData` over its own protocol.

mod client;
mod wire;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use futures::future::{FutureExt as _, LocalBoxFuture};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Clients, Cluster, Description, Kind, Place, System, connect_each, program, shared, version_of};
use crate::{
    arguments::ProgramArgs,
    failure::Failure,
    server::{Program, Servers, Voice},
    wait,
};

const CLIENTS: u16 = 0;
const QUORUM: u16 = 1;
const ELECTION: u16 = 2;

/// Beyond its default of 1 MiB less a byte, which an operation of 1 MiB does not fit.
const MESSAGE_BYTES_MAX: &str = "-Djute.maxbuffer=4194304";

/// Of slf4j-simple, which is on the class path: the causes of failures, and not every step.
const LOGGING: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";

pub(super) struct Zookeeper {
    java: PathBuf,
    jars: PathBuf,
    heap: String,
    description: Description,
}

impl Zookeeper {
    pub(super) fn find(programs: &ProgramArgs) -> Result<Self, String> {
        let jars = &programs.zookeeper;
        let first = std::env::split_paths(jars).next().unwrap_or_default();
        if !first.is_file() {
            return Err(format!(
                "there is no {}; install ZooKeeper, or say where it is with --zookeeper",
                first.display()
            ));
        }
        let java = program(&programs.java, "--java")?;
        Ok(Self {
            jars: jars.clone(),
            heap: format!("-Xmx{}", programs.zookeeper_heap),
            description: Description {
                system: Kind::Zookeeper,
                version: version(&java, jars)?,
                operation: "setData, one node of the tree a connection, by a client of a few lines"
                    .to_owned(),
                durability: "fsync at a majority",
                executor: "its tree, in the memory of every member".to_owned(),
            },
            java,
        })
    }

    fn member(&self, place: &Place<'_>, member: u16) -> Result<Program<'_>, Failure> {
        let name = format!("zookeeper{member}");
        let data = place.folder.join(&name);
        let configuration = place.folder.join(format!("{name}.cfg"));
        let written = fs::create_dir(&data)
            .and_then(|()| fs::write(data.join("myid"), member.to_string()))
            .and_then(|()| fs::write(&configuration, settings(place, member, &data)));
        written.map_err(|error| Failure::new(format!("cannot configure {name}: {error}; see --folder")))?;
        let arguments = [
            self.heap.clone().into(),
            MESSAGE_BYTES_MAX.into(),
            LOGGING.into(),
            "-cp".into(),
            self.jars.clone().into_os_string(),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain".into(),
            configuration.into_os_string(),
        ];
        Ok(Program::new(name, &self.java, arguments, Voice::Log))
    }
}

fn version(java: &Path, jars: &Path) -> Result<String, String> {
    let mut command = Command::new(java);
    command
        .arg("-cp")
        .arg(jars)
        .arg("org.apache.zookeeper.version.VersionInfoMain");
    version_of(&mut command, "Apache ZooKeeper, version")
}

fn settings(place: &Place<'_>, member: u16, data: &Path) -> String {
    let mut text = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\n\
         maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n",
        data.display(),
        place.port(CLIENTS, member)
    );
    for peer in place.numbers().filter(|_| place.members > 1) {
        let (quorum, election) = (place.port(QUORUM, peer), place.port(ELECTION, peer));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "server.{peer}=127.0.0.1:{quorum}:{election}");
    }
    text
}

impl System for Zookeeper {
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
            let all: Vec<String> = place
                .numbers()
                .map(|member| place.address(CLIENTS, member))
                .collect();
            let leader = wait::until("all of ZooKeeper to serve", &mut servers, async || {
                leader(&all).await
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

/// The number of the member that leads, once all of them serve.
async fn leader(all: &[String]) -> Result<u16, String> {
    let mut found = None;
    for (member, address) in (1..).zip(all) {
        let said = say_srvr(address)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        match mode_in(&said) {
            Some("leader" | "standalone") => found = Some(member),
            Some("follower") => {}
            _ => return Err(format!("{address} says: {}", said.trim())),
        }
    }
    found.ok_or_else(|| "none of them leads".to_owned())
}

/// Four letters, and the answer until the connection is closed.
async fn say_srvr(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn mode_in(said: &str) -> Option<&str> {
    said.lines()
        .find_map(|line| line.strip_prefix("Mode: "))
        .map(str::trim)
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
        let connect = async |number, address: &String| {
            let writes = client::Writes::connect(address, format!("/benchmark-{number}")).await;
            writes.map_err(|error| format!("{address}: {error}"))
        };
        connect_each(&self.targets, shared(connections, clients), connect).boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use processes::ports::Ports;

    use super::*;
    use crate::arguments::Target;

    #[test]
    fn modes() {
        let said = "Zookeeper version: 3.8.0\nMode: follower\nNode count: 5\n";
        assert_eq!(mode_in(said), Some("follower"));
        assert_eq!(
            mode_in("This ZooKeeper instance is not currently serving requests\n"),
            None
        );
    }

    #[test]
    fn one_member_stands_alone() {
        let ports = Ports::claim();
        let told = |members| {
            let place = Place {
                folder: Path::new("/data"),
                ports: &ports,
                members,
                target: Target::Leader,
                snapshot_every: None,
            };
            settings(&place, 1, Path::new("/data/zookeeper1"))
        };
        assert_eq!(told(1).matches("server.").count(), 0);
        assert_eq!(told(3).matches("\nserver.").count(), 3);
    }
}
