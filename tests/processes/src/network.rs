//! Pods on machines of their own, as far as one kernel can tell them apart: each in a namespace with a disk of its own,
//! all at one bridge in another namespace, where a test can cut, lose and delay what they say to each other. Nothing of
//! it is seen from outside, and all of it ends with the test.
//!
//! A thread that has entered the namespace of the bridge reaches every pod directly: clients are not subject to what happens
//! between pods.

use crate::cluster::Host;
use crate::links::{self, Delays, Losses, peer_address, pod_address};
use crate::namespace::Namespace;
use crate::relay::Relay;
use crate::requirements;
use crate::volume;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What it is made with.
const TOOLS: [&str; 6] = [
    "unshare",
    "nsenter",
    "ip",
    "iptables-restore",
    "iptables-save",
    "mount",
];

/// The namespaces.
#[derive(Debug)]
pub struct Network {
    pods: BTreeMap<u32, Namespace>,
    hub: Namespace,
    delays: Delays,
    relay: Option<Relay>,
    folder: TempDir,
}

impl Network {
    /// Makes one with `nodes` pods, each with a disk of `mebibytes`, and moves the calling thread to the bridge. `None`, after
    /// saying that `test` is skipped, where that cannot be done.
    pub fn make(test: &str, nodes: u32, mebibytes: u32) -> Option<Self> {
        let missing = TOOLS.iter().find(|tool| requirements::tool(tool).is_none());
        let made = match missing {
            _ if !requirements::is_root() => Err("network namespaces need root".to_owned()),
            Some(tool) => Err(format!("{tool} is not installed")),
            None => Self::try_make(nodes, mebibytes),
        };
        made.map_err(|why| requirements::skip(test, &why)).ok()
    }

    fn try_make(nodes: u32, mebibytes: u32) -> Result<Self, String> {
        let hub = Namespace::network()?;
        let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
        hub.enter_network()?;
        hub.run(&["ip", "-batch", "-"], &hub_devices(nodes))?;
        let mut pods = BTreeMap::new();
        for node in 1..=nodes {
            let pod = Namespace::network_and_mounts()?;
            hub.run(&["ip", "-batch", "-"], &link_to(node, pod.holder()))?;
            pod.run(&["ip", "-batch", "-"], &pod_devices(node))?;
            mount(&pod, &disk(folder.path(), node), mebibytes)?;
            pods.insert(node, pod);
        }
        let network = Self {
            pods,
            hub,
            delays: Delays::default(),
            relay: None,
            folder,
        };
        // The kernel may lack what is asked for only when something is to be lost.
        let mut losses = Losses::default();
        losses.lose((1, 2), 50);
        network.try_set(&losses)?;
        network.try_set(&Losses::default())?;
        Ok(network)
    }

    /// Carries what pods that listen at these ports say to each other.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn relay(&mut self, ports: &[(u32, u16)]) {
        let relay = Relay::start(ports, &self.delays).await;
        self.relay = Some(relay.unwrap_or_else(|why| panic!("{why}")));
    }

    /// The machines.
    pub fn hosts(&self) -> BTreeMap<u32, Host> {
        let host = |(&node, pod): (&u32, &Namespace)| {
            let host = Host {
                address: pod_address(node),
                peer_address: peer_address(node),
                launcher: pod.launcher(),
            };
            (node, host)
        };
        self.pods.iter().map(host).collect()
    }

    /// Where each machine's disk is mounted, seen from there.
    pub fn disks(&self) -> BTreeMap<u32, PathBuf> {
        let place = |&node: &u32| (node, disk(self.folder.path(), node));
        self.pods.keys().map(place).collect()
    }

    /// From now on these packets are lost and no others.
    ///
    /// # Panics
    /// When the kernel does not take the rules.
    pub fn set(&self, losses: &Losses) {
        self.try_set(losses).unwrap_or_else(|why| panic!("{why}"));
    }

    fn try_set(&self, losses: &Losses) -> Result<(), String> {
        self.hub
            .run(&["iptables-restore", "--wait"], &losses.rules())
            .map(drop)
    }

    /// Packets that were lost since [`Network::set`].
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn dropped(&self) -> u64 {
        let saved = self
            .hub
            .run(&["iptables-save", "--counters", "--table", "filter"], "");
        links::dropped(&saved.unwrap_or_else(|why| panic!("{why}")))
    }

    /// How late packets are.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Takes all room on the disk of a pod.
    pub fn fill_disk(&self, node: u32) {
        volume::fill(&self.disk_from_outside(node), 0);
    }

    /// Gives it back.
    pub fn make_room(&self, node: u32) {
        volume::make_room(&self.disk_from_outside(node));
    }

    fn disk_from_outside(&self, node: u32) -> PathBuf {
        self.from_outside(node, &disk(self.folder.path(), node))
    }

    /// A path of a pod, as it is for this process.
    pub fn from_outside(&self, node: u32, path: &Path) -> PathBuf {
        let pod = self.pods.get(&node).expect("a node number of this network");
        pod.root()
            .join(path.strip_prefix("/").expect("paths of pods are absolute"))
    }
}

fn disk(folder: &Path, node: u32) -> PathBuf {
    folder.join(format!("pod{node}"))
}

fn mount(pod: &Namespace, disk: &Path, mebibytes: u32) -> Result<(), String> {
    fs::create_dir(disk).map_err(|error| format!("cannot make {}: {error}", disk.display()))?;
    let disk = disk.to_str().ok_or("the temporary folder's name is no text")?;
    let options = format!("size={mebibytes}m,mode=0755");
    pod.run(
        &["mount", "-t", "tmpfs", "-o", &options, "raftlog-test", disk],
        "",
    )
    .map(drop)
}

fn hub_devices(nodes: u32) -> String {
    let mut batch = "link set lo up\n\
        link add hub type bridge\n\
        link set hub up\n\
        address add 10.77.0.254/16 dev hub\n"
        .to_owned();
    for node in 1..=nodes {
        writeln!(batch, "address add {}/32 dev hub", peer_address(node)).expect("a string takes everything");
    }
    batch
}

fn link_to(node: u32, holder: u32) -> String {
    format!(
        "link add pod{node} type veth peer name eth0 netns {holder}\n\
         link set pod{node} master hub\n\
         link set pod{node} up\n"
    )
}

fn pod_devices(node: u32) -> String {
    format!(
        "link set lo up\n\
         address add {}/16 dev eth0\n\
         link set eth0 up\n",
        pod_address(node)
    )
}
