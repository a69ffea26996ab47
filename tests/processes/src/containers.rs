//! Images built and run for real, with a container runtime of the test's own.

use crate::binaries;
use crate::process::{self, Finished, Process};
use crate::reaper::Registration;
use crate::requirements;
use crate::wait::eventually;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What the images stand on, where it is not what the Dockerfile says.
pub const BASE_IMAGE: &str = "RAFT_TEST_BASE_IMAGE";

/// The Dockerfile's own.
const DEFAULT_BASE_IMAGE: &str = "gcr.io/distroless/cc-debian12:nonroot";

/// A containerd with data, state and socket in a temporary folder.
#[derive(Debug)]
pub struct Containerd {
    tools: Tools,
    base_image: String,
    containers: Vec<String>,
    images: Vec<String>,
    // Dropped after the containers, and before the folder that it writes into.
    daemon: Process,
    folder: TempDir,
}

#[derive(Debug)]
struct Tools {
    buildah: PathBuf,
    containerd: PathBuf,
    ctr: PathBuf,
}

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    /// The foreground client of the container: its output is the container's, signals are handed on, and so is the exit
    /// code.
    pub client: Process,
    /// The process ID of the container's first process, outside.
    pub id: i32,
    _registrations: [Registration; 2],
}

impl Containerd {
    /// Starts it. `None`, after saying that `test` is skipped, where something is missing.
    pub async fn start(test: &str) -> Option<Self> {
        let base_image = std::env::var(BASE_IMAGE).unwrap_or_else(|_| DEFAULT_BASE_IMAGE.into());
        let tools = match Tools::find(&base_image).await {
            Ok(tools) => tools,
            Err(why) => {
                requirements::skip(test, &why);
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let place = folder.path().display();
        let configuration = format!(
            "version = 2\nroot = '{place}/root'\nstate = '{place}/state'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{place}/socket'\n"
        );
        let file = folder.path().join("config.toml");
        fs::write(&file, configuration).expect("the temporary folder can be written");
        let file = file.display().to_string();
        let daemon = Process::spawn("containerd", &tools.containerd, &["--config", &file]);
        let this = Self {
            tools,
            base_image,
            containers: vec![],
            images: vec![],
            daemon,
            folder,
        };
        eventually("containerd to answer", async || {
            let finished = this.ctr(&["version"]).await;
            if finished.code == 0 {
                Ok(())
            } else {
                Err(format!("{:?}", finished.stderr))
            }
        })
        .await;
        Some(this)
    }

    /// Builds a target of `deploy/Dockerfile` from the programs that the tests run, with no second compile, and imports
    /// it. Gives the image's name and its configuration.
    pub async fn build(&mut self, target: &str) -> (String, serde_json::Value) {
        let image = format!("localhost/{target}:test-{}", std::process::id());
        self.images.push(image.clone());
        let stage = self.folder.path().join("build");
        let archive = self
            .folder
            .path()
            .join(format!("{target}.tar"))
            .display()
            .to_string();
        place_programs(&stage);
        let workspace = binaries::workspace();
        let dockerfile = workspace.join("deploy/Dockerfile").display().to_string();
        let (stage, base) = (
            format!("build={}", stage.display()),
            format!("BASE_IMAGE={}", self.base_image),
        );
        let workspace = workspace.display().to_string();
        let flags = [
            "bud",
            "--isolation",
            "chroot",
            "--pull-never",
            "--build-context",
            &stage,
            "--build-arg",
            &base,
        ];
        let what = ["-f", &dockerfile, "--target", target, "-t", &image, &workspace];
        self.buildah(&[&flags[..], &what].concat()).await;
        let inspected = self.buildah(&["inspect", "--type", "image", &image]).await;
        let inspected: serde_json::Value =
            serde_json::from_str(&inspected.text()).expect("buildah writes JSON");
        self.buildah(&["push", &image, &format!("oci-archive:{archive}:{image}")])
            .await;
        let imported = self.ctr(&["images", "import", &archive]).await;
        assert_eq!(imported.code, 0, "{:?}", imported.stderr);
        (image, inspected["OCIv1"]["config"].clone())
    }

    /// Runs a container on the host's network; with `command` in place of the image's entry point, unless empty.
    pub async fn run(
        &mut self,
        name: &str,
        image: &str,
        environment: &[(&str, String)],
        command: &[&str],
    ) -> Container {
        self.containers.push(name.to_owned());
        let pid_file = self.folder.path().join(format!("{name}.pid"));
        let mut arguments = self.with_address(&["run", "--rm", "--net-host", "--pid-file"]);
        arguments.push(pid_file.display().to_string());
        arguments.extend([
            "--fifo-dir".into(),
            self.folder.path().join("fifo").display().to_string(),
        ]);
        for (variable, value) in environment {
            arguments.extend(["--env".into(), format!("{variable}={value}")]);
        }
        arguments.extend([image.to_owned(), name.to_owned()]);
        arguments.extend(command.iter().map(|&word| word.to_owned()));
        let mut client = Process::spawn_with(name, &self.tools.ctr, &arguments, &[], Stdio::null());
        let id = eventually(&format!("container {name} to run"), async || {
            assert!(
                client.is_running(),
                "container {name} ended before it began: {:?}",
                client.stderr()
            );
            let text = fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
            text.trim().parse::<i32>().map_err(|error| error.to_string())
        })
        .await;
        let group = |id: i32| Registration::new(u32::try_from(id).expect("process IDs are positive"));
        Container {
            client,
            id,
            _registrations: [group(id), group(parent(id))],
        }
    }

    /// Runs a command in a container of its own to its end.
    pub async fn run_to_end(&mut self, name: &str, image: &str, command: &[&str]) -> Finished {
        self.containers.push(name.to_owned());
        self.ctr(&[&["run", "--rm", "--net-host", image, name], command].concat())
            .await
    }

    async fn ctr(&self, arguments: &[&str]) -> Finished {
        process::run(&self.tools.ctr, &self.with_address(arguments), b"").await
    }

    fn with_address(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec![
            "--address".to_owned(),
            self.folder.path().join("socket").display().to_string(),
        ];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all
    }

    async fn buildah(&self, arguments: &[&str]) -> Finished {
        let finished = process::run(&self.tools.buildah, arguments, b"").await;
        assert_eq!(finished.code, 0, "buildah {arguments:?}: {:#?}", finished.stderr);
        finished
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let quietly = |tool: &Path, arguments: &[String]| {
            let _ = Command::new(tool)
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        };
        for name in &self.containers {
            quietly(
                &self.tools.ctr,
                &self.with_address(&["tasks", "rm", "--force", name]),
            );
            quietly(&self.tools.ctr, &self.with_address(&["containers", "rm", name]));
        }
        for image in &self.images {
            quietly(&self.tools.buildah, &["rmi".into(), image.clone()]);
        }
        if std::thread::panicking() {
            eprintln!("containerd runs: {}", self.daemon.is_running());
        }
    }
}

impl Tools {
    async fn find(base_image: &str) -> Result<Self, String> {
        if !requirements::is_root() {
            return Err("running containers needs root".into());
        }
        let find = |name: &str| requirements::tool(name).ok_or(format!("{name} is not installed"));
        find("runc")?;
        let tools = Self {
            buildah: find("buildah")?,
            containerd: find("containerd")?,
            ctr: find("ctr")?,
        };
        let base = process::run(&tools.buildah, &["inspect", "--type", "image", base_image], b"").await;
        if base.code != 0 {
            return Err(format!(
                "the base image {base_image} is not here: pull it, or name another one with {BASE_IMAGE}"
            ));
        }
        Ok(tools)
    }
}

fn place_programs(stage: &Path) {
    fs::create_dir_all(stage).expect("the temporary folder can be written");
    for program in ["raft-node", "raft-replicator", "raftctl"] {
        let (from, to) = (binaries::path(program), stage.join(program));
        if !to.exists() {
            fs::copy(from, to).expect("programs can be copied");
        }
    }
}

/// The parent of a container's first process, which the runtime left beside it; where that ended already, the process
/// itself.
fn parent(id: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.filter(|&parent| parent > 1).unwrap_or(id)
}
