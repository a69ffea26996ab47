//! Members that go on alone.

use raftlog_raft::entry::{Operation, SessionStamp};
use raftlog_raft::ids::OperationIndex;
use raftlog_storage::DiskErrorKind;

use super::*;

/// Member 1 of three, led by member 2.
struct OneOfThree {
    alone: Alone,
    leader: MemberId,
    fold: Fold,
    entries: Vec<Entry>,
}

impl OneOfThree {
    fn formed() -> Self {
        let mut alone = Alone::start_with(MemoryDisk::new(1 << 30), BTreeMap::new());
        let members = alone.one_of_three();
        let (leader, fold) = (members[1].id, Fold::new(Configuration::new(0, members.clone())));
        let bootstrap = Input::Bootstrap {
            id: 1,
            cluster_id: ClusterId::new(9).unwrap(),
            to_member: alone.node.member_id(),
            members,
        };
        alone.node.handle(alone.now, bootstrap);
        alone.run(Duration::from_millis(100));
        Self {
            alone,
            leader,
            fold,
            entries: Vec::new(),
        }
    }

    /// Its leader appends something, of which it has committed that much.
    fn hear(&mut self, payload: Payload, commit: u64) {
        let at = u64::try_from(self.entries.len()).unwrap();
        let entry = self.fold.next_entry(at + 1, 1, payload);
        self.fold.apply(&entry);
        self.entries.push(entry.clone());
        let append = AppendEntries {
            previous: LogPosition {
                index: at,
                term: u64::from(at > 0),
            },
            entries: vec![entry],
            commit,
            round: at + 1,
            heartbeat: false,
            minimum_election_timeout: Duration::from_millis(1_500),
            read_answers: Vec::new(),
            previous_hash: None,
        };
        let message = Message {
            from: self.leader,
            to: self.alone.node.member_id(),
            term: 1,
            level: FeatureLevel::FIRST,
            body: Body::AppendEntries(append),
        };
        self.alone.node.handle(self.alone.now, Input::Message(message));
        self.alone.run(Duration::from_millis(100));
    }

    /// Its disk, with three operations, of which it knows one to be committed.
    fn folder() -> MemoryDisk {
        let mut one = Self::formed();
        one.hear(Payload::Noop, 0);
        for (sequence, commit) in [(1, 1), (2, 2), (3, 2)] {
            one.hear(operation(sequence), commit);
        }
        one.alone.disk
    }
}

fn operation(sequence: u64) -> Payload {
    let stamp = SessionStamp {
        client_id: "client".into(),
        sequence,
        acknowledged_through: 0,
    };
    Payload::Operation(Operation {
        data: "op".into(),
        session: Some(stamp),
    })
}

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(5)
}

/// Starts the node of that folder, which elects itself, and has it append an operation, of the session's first sequence.
fn go_on(disk: MemoryDisk) -> (Status, OperationIndex) {
    let mut alone = Alone::start_with(disk, BTreeMap::new());
    alone.run(Duration::from_secs(10));
    assert_eq!(alone.stopped, None);
    let Payload::Operation(operation) = operation(1) else {
        unreachable!("it is one")
    };
    let proposal = Proposal {
        id: 7,
        stream: None,
        proposed: Proposed::Operation(operation),
    };
    alone.node.handle(alone.now, Input::Submit(vec![proposal]));
    alone.run(Duration::from_secs(1));
    let index = match &alone.answers[&7] {
        Ok(committed) => committed.operation_index,
        Err(_) => 0,
    };
    (alone.node.status(alone.now), index)
}

#[test]
fn what_a_survivor_holds_and_what_becomes_of_it() {
    let mut disk = OneOfThree::folder();
    let survivor = Survivor::examine(&mut disk).unwrap();
    assert_eq!((survivor.operations, survivor.committed), (3, 1));
    assert_eq!(
        (survivor.last, survivor.sessions),
        (LogPosition { index: 4, term: 1 }, 1)
    );
    assert!(!survivor.suspect && !survivor.is_recovered());
    let before = survivor.now();
    let alone = survivor.go_on_alone(&mut disk, &mut random()).unwrap();
    assert!(alone.cluster != before.cluster && alone.member != before.member);
    let (status, index) = go_on(disk.clone());
    assert_eq!(
        (status.cluster_id, status.member_id),
        (Some(alone.cluster), alone.member)
    );
    assert_eq!((status.role, status.is_member), (Role::Leader, true));
    assert_eq!(
        index, 4,
        "operations go on, and the session's first one is not known any more"
    );
    let parent = status.parent.unwrap();
    assert_eq!((parent.cluster, parent.operation_index), (before.cluster, 3));
    let members = status.configuration.members();
    assert_eq!(members.len(), 1);
    assert_eq!(
        (members[0].id, &*members[0].client_address),
        (alone.member, "node1:5001")
    );
    // Once more, from what it was made: its parent is the cluster that it is now.
    let again = Survivor::examine(&mut disk).unwrap();
    assert!(again.is_recovered(), "it was not started since");
    again.complete(&mut disk).unwrap();
    let (status, _) = go_on(disk.clone());
    assert_eq!(status.cluster_id, Some(alone.cluster));
}

/// The folder is the old member's until a single step, and the new one's from then on.
#[test]
fn a_survivor_goes_on_alone_wherever_it_is_interrupted() {
    let mut seen = [0, 0];
    for steps in 0.. {
        let mut disk = Dying {
            disk: OneOfThree::folder(),
            left: u64::MAX,
        };
        let survivor = Survivor::examine(&mut disk).unwrap();
        disk.left = steps;
        let whole = survivor.go_on_alone(&mut disk, &mut random()).is_ok();
        let (mut disk, before) = (disk.disk, survivor.now());
        let found = Survivor::examine(&mut disk).unwrap();
        seen[usize::from(found.is_recovered())] += 1;
        if found.is_recovered() {
            let (status, index) = go_on(disk);
            assert_eq!((status.role, index), (Role::Leader, 4), "after {steps} steps");
        } else {
            assert_eq!(
                (found.now(), found.operations),
                (before, 3),
                "after {steps} steps"
            );
            assert_ne!(go_on(disk).0.role, Role::Leader, "it still is one of three");
        }
        if whole {
            break;
        }
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "both before and after: {seen:?}"
    );
}

/// A final batch that was written whole and does not fit its CRC: whoever is alone with that has no other way.
#[test]
fn a_damaged_end_is_given_up_with_a_recovery() {
    let mut disk = OneOfThree::folder();
    let log = disk
        .names()
        .into_iter()
        .find(|name| name.to_string().starts_with("log-"));
    let content = disk.content(log.unwrap()).unwrap();
    let last = content.chunks(512).rposition(|sector| sector[0] != 0).unwrap();
    assert!(disk.rot(log.unwrap(), last * 512 + 40));
    let survivor = Survivor::examine(&mut disk).unwrap();
    assert!(survivor.suspect);
    survivor.go_on_alone(&mut disk, &mut random()).unwrap();
    let (status, index) = go_on(disk);
    assert_eq!((status.role, status.waiting_for), (Role::Leader, None));
    assert_eq!(index, survivor.operations + 1);
}

#[test]
fn what_is_no_survivor_is_refused() {
    let refused = |mut disk: MemoryDisk| Survivor::examine(&mut disk).unwrap_err().to_string();
    assert!(refused(MemoryDisk::new(1 << 30)).contains("holds no node"));
    let unformed = Alone::start_with(MemoryDisk::new(1 << 30), BTreeMap::new());
    assert!(refused(unformed.disk).contains("belongs to no cluster"));
    let mut one = OneOfThree::formed();
    let left = Configuration::new(1, others());
    one.hear(Payload::Configuration(left), 1);
    assert!(refused(one.alone.disk).contains("does not list it"));
}

/// A disk whose process dies after so many operations.
pub(super) struct Dying {
    pub(super) disk: MemoryDisk,
    pub(super) left: u64,
}

impl Disk for Dying {
    fn execute(&mut self, op: &raftlog_storage::Op) -> Result<Outcome, DiskError> {
        if self.left == 0 {
            return Err(DiskError {
                kind: DiskErrorKind::Failed,
                message: "the process has ended".into(),
            });
        }
        self.left -= 1;
        self.disk.execute(op)
    }
}
