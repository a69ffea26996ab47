//! What a data folder belongs to: a small text in the file `identity`, written whole and synced at every change.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use bytes::Bytes;
use raftlog_raft::ids::{ClusterId, LogIndex, MemberId, NodeNumber};
use raftlog_raft::membership::Member;

use crate::disk::{Disk, DiskErrorKind, FileName, Op, Outcome};
use crate::error::OpenError;
use crate::wal::Recovery;

/// Version of the folder as a whole: which files there are and what they mean.
pub const FOLDER_VERSION: u32 = 1;

const FILE: FileName = FileName::named("identity");
/// More than any configuration needs.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Which program a folder was made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `raft-node`.
    Node,
    /// `raft-replicator`.
    Replicator,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "raft-node",
            Self::Replicator => "raft-replicator",
        })
    }
}

/// Who a data folder belongs to.
///
/// The order in which a node forms makes a lost log tell itself from an empty one: first the log gets its first batch (a
/// state will do), and only when that is persisted is `formed` stored, before the first vote or acknowledgement and before
/// the first record. [`Identity::check_log`] relies on it.
///
/// A replicator does likewise with `cluster`, but its log may be ahead by any number of records: they are the node's, and
/// whether it was paired is in the log as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The program that made the folder.
    pub program: Program,
    /// Its `--id`.
    pub node: NodeNumber,
    /// Made when the folder was first used: the owner of its log.
    pub member: MemberId,
    /// The cluster it belongs to, once there is one.
    pub cluster: Option<ClusterId>,
    /// A node: it belongs to a formed cluster and may vote and acknowledge.
    pub formed: bool,
    /// A node: the members that the cluster was bootstrapped with.
    pub bootstrap: Vec<Member>,
    /// A replicator: the member ID of the node it is paired with.
    pub paired: Option<MemberId>,
    /// A node: it went on alone with the log of a cluster that had lost its majority.
    pub recovered: Option<RecoveredFrom>,
    /// A node: the version of a committed configuration that does not list it, as a voter has told. It was removed by that, unless
    /// its own log holds a later configuration.
    pub removed_by: Option<LogIndex>,
}

/// What a member was before it went on alone under a new identity. The log stays where and as it is, so its owner, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredFrom {
    /// The cluster that it was of.
    pub cluster: ClusterId,
    /// Whose log it is: the member that the folder was first used by.
    pub log_owner: MemberId,
    /// Index of the last record of that cluster. The one behind it says that a new cluster begins; where it is not there yet,
    /// it is to be appended.
    pub after: LogIndex,
}

impl Identity {
    /// Of a folder that is used for the first time.
    pub fn new(program: Program, node: NodeNumber, member: MemberId) -> Self {
        Self {
            program,
            node,
            member,
            cluster: None,
            formed: false,
            bootstrap: Vec::new(),
            paired: None,
            recovered: None,
            removed_by: None,
        }
    }

    /// Whose log lies in the folder.
    pub fn log_owner(&self) -> MemberId {
        self.recovered.map_or(self.member, |from| from.log_owner)
    }

    /// Reads it; `None` if the folder has none.
    pub fn load(disk: &mut dyn Disk) -> Result<Option<Self>, OpenError> {
        let data = match disk.execute(&Op::Read {
            file: FILE,
            offset: 0,
            length: FILE_BYTES_MAX,
        }) {
            Ok(Outcome::Data(data)) => data,
            Ok(other) => unreachable!("data was asked for, not {other:?}"),
            Err(error) if error.kind == DiskErrorKind::Missing => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file = format!("{}/{FILE}", disk.folder());
        match parse(&data) {
            Ok(identity) => Ok(Some(identity)),
            Err(Problem::Version(found)) => Err(OpenError::Version {
                file,
                found,
                expected: FOLDER_VERSION,
            }),
            Err(Problem::Bad { offset, problem }) => Err(OpenError::Corrupt {
                file,
                offset: offset as u64,
                problem,
            }),
        }
    }

    /// The operation that stores it.
    pub fn store(&self) -> Op {
        Op::Replace {
            file: FILE,
            data: Bytes::from(self.to_string()),
        }
    }

    /// Refuses the folder of another program or node.
    pub fn check(&self, program: Program, node: NodeNumber, folder: &str) -> Result<(), OpenError> {
        if self.program != program {
            return Err(OpenError::Identity(format!(
                "data folder {folder} belongs to {}, not to {program}: give each program its own --data-dir",
                self.program
            )));
        }
        if self.node != node {
            return Err(OpenError::Identity(format!(
                "data folder {folder} belongs to node {}, not to node {node}: start it with --id {}, or choose another --data-dir",
                self.node, self.node
            )));
        }
        Ok(())
    }

    /// Refuses a log that does not go with the identity (`None`: the folder has none).
    pub fn check_log(identity: Option<&Self>, recovery: &Recovery, folder: &str) -> Result<(), OpenError> {
        const NODE_ADVICE: &str =
            "restore the missing file, or move the folder away and start empty, as a new member";
        let is = |program| identity.is_some_and(|of| of.program == program);
        let belongs = identity.is_some_and(Self::belongs);
        let (problem, advice) = match identity {
            None if recovery.batches > 0 => ("a log but no identity file", NODE_ADVICE),
            Some(_) if is(Program::Node) && belongs && recovery.batches == 0 => {
                ("the identity of a formed member but no log", NODE_ADVICE)
            }
            Some(_) if is(Program::Node) && !belongs && recovery.last_index > 0 => (
                "a log with records but the identity of a member that was never formed",
                NODE_ADVICE,
            ),
            Some(_) if is(Program::Replicator) && belongs && recovery.batches == 0 => (
                "the identity of a replicator that has executed but no log",
                "restore the log, or empty the folder so that the replicator receives and executes everything anew",
            ),
            _ => return Ok(()),
        };
        Err(OpenError::Identity(format!(
            "data folder {folder} is corrupt: it has {problem}: {advice}"
        )))
    }

    fn belongs(&self) -> bool {
        match self.program {
            Program::Node => self.formed,
            Program::Replicator => self.cluster.is_some(),
        }
    }
}

/// The text of the file, with its CRC.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        writeln!(text, "format = {FOLDER_VERSION}")?;
        writeln!(text, "program = {}", self.program)?;
        writeln!(text, "node = {}", self.node)?;
        writeln!(text, "member = {}", self.member)?;
        writeln!(text, "cluster = {}", or_none(self.cluster))?;
        writeln!(text, "formed = {}", self.formed)?;
        writeln!(text, "paired = {}", or_none(self.paired))?;
        for member in &self.bootstrap {
            let role = if member.voter { "voter" } else { "learner" };
            let (peer, client) = (Escaped(&member.peer_address), Escaped(&member.client_address));
            writeln!(
                text,
                "bootstrap = {} {} {role} {peer} {client}",
                member.id, member.node
            )?;
        }
        if let Some(RecoveredFrom {
            cluster,
            log_owner,
            after,
        }) = self.recovered
        {
            writeln!(text, "recovered = {cluster} {log_owner} {after}")?;
        }
        if let Some(version) = self.removed_by {
            writeln!(text, "removed = {version}")?;
        }
        writeln!(f, "{text}crc = {:08x}", crc32fast::hash(text.as_bytes()))
    }
}

fn or_none(id: Option<impl fmt::Display>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

/// Text without blanks and line ends: what is not printable ASCII becomes `%XX`.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'%' => f.write_str("%25"),
            byte if byte.is_ascii_graphic() => f.write_char(char::from(byte)),
            byte => write!(f, "%{byte:02x}"),
        })
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Version(u32),
    Bad { offset: usize, problem: String },
}

fn parse(data: &[u8]) -> Result<Identity, Problem> {
    let bad = |offset: usize, problem: &str| Problem::Bad {
        offset,
        problem: problem.to_owned(),
    };
    let text = std::str::from_utf8(data).map_err(|e| bad(e.valid_up_to(), "it is no text"))?;
    let mut lines = Lines { text, offset: 0 };
    let version = lines.value("format")?;
    if version != FOLDER_VERSION {
        return Err(Problem::Version(version));
    }
    let identity = Identity {
        program: match lines.text("program")? {
            "raft-node" => Program::Node,
            "raft-replicator" => Program::Replicator,
            other => {
                return Err(bad(
                    lines.offset,
                    &format!("'{other}' is no program of this system"),
                ));
            }
        },
        node: lines.value("node")?,
        member: lines.value("member")?,
        cluster: lines.value_or_none("cluster")?,
        formed: lines.value("formed")?,
        paired: lines.value_or_none("paired")?,
        bootstrap: lines.members()?,
        recovered: lines.recovered()?,
        removed_by: lines.value_if_there("removed")?,
    };
    let covered = lines.offset;
    let crc = u32::from_str_radix(lines.text("crc")?, 16).ok();
    let actual = text
        .get(..covered)
        .map(|covered| crc32fast::hash(covered.as_bytes()));
    if crc != actual {
        return Err(bad(covered, "it does not match its CRC"));
    }
    if lines.offset != text.len() {
        return Err(bad(lines.offset, "something follows the CRC"));
    }
    Ok(identity)
}

/// Reads `key = value` lines in their order.
struct Lines<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Lines<'a> {
    /// The value of the next line, if that is its key.
    fn next(&mut self, key: &str) -> Option<&'a str> {
        let (line, _) = self.text.get(self.offset..)?.split_once('\n')?;
        let value = line.strip_prefix(key)?.strip_prefix(" = ")?;
        self.offset += line.len() + 1;
        Some(value)
    }

    fn text(&mut self, key: &str) -> Result<&'a str, Problem> {
        let offset = self.offset;
        self.next(key).ok_or_else(|| Problem::Bad {
            offset,
            problem: format!("there is no line '{key} = '"),
        })
    }

    fn value<T: FromStr>(&mut self, key: &str) -> Result<T, Problem> {
        let offset = self.offset;
        let text = self.text(key)?;
        text.parse().map_err(|_| Problem::Bad {
            offset,
            problem: format!("'{text}' is no {key}"),
        })
    }

    fn value_if_there<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, Problem> {
        let offset = self.offset;
        let Some(text) = self.next(key) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| Problem::Bad {
            offset,
            problem: format!("'{text}' is no {key}"),
        })
    }

    fn value_or_none<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, Problem> {
        let offset = self.offset;
        match self.text(key)? {
            "none" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Problem::Bad {
                offset,
                problem: format!("'{text}' is no {key}"),
            }),
        }
    }

    fn recovered(&mut self) -> Result<Option<RecoveredFrom>, Problem> {
        let offset = self.offset;
        let Some(text) = self.next("recovered") else {
            return Ok(None);
        };
        let recovered = parse_recovered(text).ok_or_else(|| Problem::Bad {
            offset,
            problem: format!("'{text}' is no place of a recovery"),
        })?;
        Ok(Some(recovered))
    }

    fn members(&mut self) -> Result<Vec<Member>, Problem> {
        let mut members = Vec::new();
        loop {
            let offset = self.offset;
            let Some(text) = self.next("bootstrap") else {
                return Ok(members);
            };
            let problem = || Problem::Bad {
                offset,
                problem: format!("'{text}' is no member"),
            };
            members.push(parse_member(text).ok_or_else(problem)?);
        }
    }
}

fn parse_member(text: &str) -> Option<Member> {
    let mut fields = text.split(' ');
    let member = Member {
        id: fields.next()?.parse().ok()?,
        node: fields.next()?.parse().ok()?,
        voter: match fields.next()? {
            "voter" => true,
            "learner" => false,
            _ => return None,
        },
        peer_address: unescape(fields.next()?)?,
        client_address: unescape(fields.next()?)?,
    };
    fields.next().is_none().then_some(member)
}

fn parse_recovered(text: &str) -> Option<RecoveredFrom> {
    let mut fields = text.split(' ');
    let recovered = RecoveredFrom {
        cluster: fields.next()?.parse().ok()?,
        log_owner: fields.next()?.parse().ok()?,
        after: fields.next()?.parse().ok()?,
    };
    fields.next().is_none().then_some(recovered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, peer_address: &str) -> Member {
        let client_address = "node1:5001".to_owned();
        Member {
            id: MemberId::new(id).unwrap(),
            node: 1,
            peer_address: peer_address.into(),
            client_address,
            voter: id == 1,
        }
    }

    fn formed() -> Identity {
        Identity {
            cluster: ClusterId::new(0xc1),
            formed: true,
            bootstrap: vec![
                member(1, "demo-0.demo-peers:5002"),
                member(2, "a b\n% ü"),
                member(3, ""),
            ],
            paired: MemberId::new(9),
            ..Identity::new(Program::Node, 1, MemberId::new(1).unwrap())
        }
    }

    fn recovered() -> Identity {
        let from = RecoveredFrom {
            cluster: ClusterId::new(0xc0).unwrap(),
            log_owner: MemberId::new(7).unwrap(),
            after: 9,
        };
        Identity {
            recovered: Some(from),
            removed_by: Some(12),
            ..formed()
        }
    }

    #[test]
    fn the_log_keeps_its_owner() {
        assert_eq!(formed().log_owner(), formed().member);
        assert_eq!(recovered().log_owner(), MemberId::new(7).unwrap());
    }

    #[test]
    fn it_survives_its_text() {
        for identity in [
            formed(),
            recovered(),
            Identity::new(Program::Replicator, u32::MAX, MemberId::new(u64::MAX).unwrap()),
        ] {
            assert_eq!(parse(identity.to_string().as_bytes()), Ok(identity));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let text = recovered().to_string();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(parse(&bytes).is_err(), "byte {at}");
            assert!(parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let text = formed().to_string().replacen("format = 1", "format = 2", 1);
        assert_eq!(parse(text.as_bytes()), Err(Problem::Version(2)));
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let identity = formed();
        assert_eq!(identity.check(Program::Node, 1, "/d"), Ok(()));
        for (program, node, names) in [
            (Program::Node, 2, "node 1, not to node 2"),
            (Program::Replicator, 1, "raft-node, not to raft-replicator"),
        ] {
            let line = identity.check(program, node, "/d").unwrap_err().to_string();
            assert!(
                line.contains(names) && line.contains("/d") && !line.contains('\n'),
                "{line}"
            );
        }
    }

    #[test]
    fn log_and_identity_must_go_together() {
        let formed = formed();
        let unformed = Identity {
            formed: false,
            ..formed.clone()
        };
        let replicator = Identity {
            program: Program::Replicator,
            ..unformed.clone()
        };
        let alone = Identity {
            cluster: None,
            ..replicator.clone()
        };
        let log = |batches, last_index| Recovery {
            last_index,
            batches,
            ..Recovery::default()
        };
        for (identity, recovery, fits) in [
            (None, log(0, 0), true),
            (None, log(1, 0), false),
            (Some(&formed), log(0, 0), false),
            (Some(&formed), log(1, 0), true),
            (Some(&formed), log(2, 1), true),
            (Some(&unformed), log(0, 0), true),
            // The process died between the first batch and the identity.
            (Some(&unformed), log(1, 0), true),
            (Some(&unformed), log(2, 1), false),
            (Some(&replicator), log(0, 0), false),
            (Some(&replicator), log(1, 0), true),
            (Some(&replicator), log(2, 1), true),
            (Some(&alone), log(0, 0), true),
            // The process died between the first batch and the identity.
            (Some(&alone), log(1, 0), true),
            (Some(&alone), log(2, 1), true),
        ] {
            let checked = Identity::check_log(identity, &recovery, "/d");
            assert_eq!(checked.is_ok(), fits, "{identity:?} with {recovery:?}");
        }
    }
}
