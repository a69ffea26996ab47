//! The processes of a system under test.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use processes::reaper::Registration;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{failure::Failure, usage::Usage};

/// Of this process's environment only what programs in general need is passed on.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "TMPDIR", "JAVA_HOME"];
/// The last lines of a log that an error shows.
const LAST_LINES: usize = 3;

/// Where the standard output of a server goes. Its errors always go to its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Nowhere.
    Null,
    /// To its log.
    Log,
    /// To a file of its own.
    File(PathBuf),
}

/// How to start a server.
#[derive(Clone, Debug)]
pub(crate) struct Program<'a> {
    /// As its log is called.
    pub(crate) name: String,
    pub(crate) binary: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) voice: Voice,
}

impl<'a> Program<'a> {
    pub(crate) fn new<A: Into<OsString>>(
        name: String,
        binary: &'a Path,
        arguments: impl IntoIterator<Item = A>,
        voice: Voice,
    ) -> Self {
        Self {
            name,
            binary,
            arguments: arguments.into_iter().map(Into::into).collect(),
            voice,
        }
    }
}

/// A process in a group of its own. Killed with all its children when dropped, and by the reaper when this process ends without
/// having come to that.
#[derive(Debug)]
struct Server {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
    _registration: Registration,
}

impl Server {
    fn start(program: &Program<'_>, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join(format!("{}.log", program.name));
        let started = Self::spawn(program, &log);
        let child = started.map_err(|error| {
            let binary = program.binary.display();
            Failure::new(format!("cannot start {}, {binary}: {error}", program.name))
        })?;
        let id = child.id();
        let group = i32::try_from(id).ok().and_then(Pid::from_raw);
        Ok(Self {
            name: program.name.clone(),
            child,
            group: group.expect("process IDs are positive and fit an i32"),
            log,
            _registration: Registration::new(id),
        })
    }

    fn spawn(program: &Program<'_>, log: &Path) -> io::Result<Child> {
        // It may be started again.
        let log = File::options().create(true).append(true).open(log)?;
        let voice = match &program.voice {
            Voice::Null => Stdio::null(),
            Voice::Log => log.try_clone()?.into(),
            Voice::File(path) => File::create(path)?.into(),
        };
        let mut command = Command::new(program.binary);
        command.args(&program.arguments).env_clear();
        for variable in PASSED_ON {
            command.envs(std::env::var_os(variable).map(|value| (variable, value)));
        }
        command.stdin(Stdio::null()).stdout(voice).stderr(log);
        command.process_group(0).spawn()
    }

    fn id(&self) -> String {
        self.child.id().to_string()
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // What is indented is told by the line before: a trace of calls, for example.
        let lines = log
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(char::is_whitespace));
        let lines: Vec<&str> = lines.collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..);
        format!("{}: {}", self.name, last.unwrap_or_default().join(" | "))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What its data were good for is measured: they are removed anyway, and nobody waits for a graceful stop.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// All processes of one system.
#[derive(Debug)]
pub(crate) struct Servers(Vec<Server>);

impl Servers {
    /// Starts them, with a log each in `folder`.
    pub(crate) fn start(programs: &[Program<'_>], folder: &Path) -> Result<Self, Failure> {
        let started = programs.iter().map(|program| Server::start(program, folder));
        started.collect::<Result<_, _>>().map(Self)
    }

    /// Starts one more, or one again that has ended.
    pub(crate) fn add(&mut self, program: &Program<'_>, folder: &Path) -> Result<(), Failure> {
        self.0.push(Server::start(program, folder)?);
        Ok(())
    }

    /// kill -9, and nothing of it is left.
    pub(crate) fn kill(&mut self, name: &str) {
        self.0.retain(|server| server.name != name);
    }

    /// Sends that signal to one of them.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Result<(), Failure> {
        let server = self.0.iter().find(|server| server.name == name);
        let server = server.ok_or_else(|| Failure::new(format!("{name} does not run")))?;
        kill_process_group(server.group, signal)
            .map_err(|error| Failure::new(format!("cannot send a signal to {name}: {error}")))
    }

    /// Whether one that was told to end has done so, and how. It is none of them any more then.
    pub(crate) fn ended(&mut self, name: &str) -> Option<ExitStatus> {
        let place = self.0.iter().position(|server| server.name == name)?;
        let status = self.0.get_mut(place)?.child.try_wait().ok().flatten()?;
        self.0.remove(place);
        Some(status)
    }

    /// The process group of one of them.
    pub(crate) fn group(&self, name: &str) -> Option<Pid> {
        let server = self.0.iter().find(|server| server.name == name)?;
        Some(server.group)
    }

    /// Fails when one has ended.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        for server in &mut self.0 {
            let status = server.child.try_wait();
            if let Some(status) = status.map_err(|error| Failure::new(format!("{}: {error}", server.name)))? {
                let (name, said) = (&server.name, server.last_words());
                return Err(Failure::new(format!(
                    "{name} ended ({status}); run with --keep and look at its log, which ends: {said}"
                )));
            }
        }
        Ok(())
    }

    /// The last lines of each log.
    pub(crate) fn last_words(&self) -> String {
        let words: Vec<String> = self.0.iter().map(Server::last_words).collect();
        words.join(" || ")
    }

    /// What they have used so far.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let each = self.usage_of_each()?.into_iter().map(|(_, usage)| usage);
        Ok(Usage::sum(each.collect()))
    }

    /// What each of them has used so far, by its name.
    pub(crate) fn usage_of_each(&self) -> Result<Vec<(String, Usage)>, Failure> {
        let each = self.0.iter().map(|server| {
            let usage = Usage::of_process(&server.id());
            let usage =
                usage.map_err(|why| Failure::new(format!("cannot tell what {} uses: {why}", server.name)))?;
            Ok((server.name.clone(), usage))
        });
        each.collect()
    }

    /// From here on, what they have at most is what they have at most from here on.
    pub(crate) fn forget_peaks(&self) {
        for server in &self.0 {
            // Where the kernel does not allow it, the peak is that since the start: never too little.
            let _ = fs::write(format!("/proc/{}/clear_refs", server.id()), "5");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn shell(name: &str, script: &str, voice: Voice) -> Program<'static> {
        Program::new(name.to_owned(), Path::new("/bin/sh"), ["-c", script], voice)
    }

    #[test]
    fn who_ended_is_named_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let programs = [
            shell("first", "exec sleep 3600", Voice::Null),
            shell(
                "second",
                "echo to stdout; echo to stderr >&2; echo \"  at line 1\" >&2; exit 3",
                Voice::Log,
            ),
        ];
        let mut servers = Servers::start(&programs, folder.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let failure = loop {
            match servers.check() {
                Err(failure) => break failure.to_string(),
                Ok(()) => assert!(Instant::now() < deadline, "it never ended"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for part in [
            "second ended",
            "exit status: 3",
            "to stdout | to stderr",
            "--keep",
        ] {
            assert!(failure.contains(part), "no {part} in: {failure}");
        }
        assert!(!failure.contains("at line 1"), "{failure}");
    }

    #[test]
    fn nothing_outlives_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::start(&[shell("it", "sleep 3600", Voice::Null)], folder.path()).unwrap();
        let id = servers.0.first().unwrap().child.id();
        assert!(servers.usage().is_ok());
        drop(servers);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn one_of_them_ends_and_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let program = shell("it", "echo begun >&2; exec sleep 3600", Voice::Null);
        let mut servers = Servers::start(std::slice::from_ref(&program), folder.path()).unwrap();
        servers.signal("it", Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while servers.ended("it").is_none() {
            assert!(Instant::now() < deadline, "it never ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(servers.signal("it", Signal::TERM).is_err(), "it is gone");
        servers.add(&program, folder.path()).unwrap();
        assert_eq!(servers.usage_of_each().unwrap().len(), 1);
        servers.kill("it");
        assert!(servers.group("it").is_none());
        servers.check().unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Program::new("it".to_owned(), Path::new("/no/such/program"), ["x"], Voice::Null);
        let failure = Servers::start(&[missing], folder.path()).unwrap_err();
        assert!(failure.to_string().contains("/no/such/program"), "{failure}");
    }
}
