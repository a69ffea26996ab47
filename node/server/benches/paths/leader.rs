//! What a leader of five does for one operation, in two parts: from the proposal to what is sent and written, and from the
//! acknowledgements to the answer.

use std::hint::black_box;
use std::time::Duration;

use raftlog_raft::durability::Ticket;
use raftlog_raft::effect::{Effect, Proposal, Proposed};
use raftlog_raft::entry::HardState;
use raftlog_raft::feature::{FeatureLevel, Supports};
use raftlog_raft::message::{AppendEntriesResponse, Body, Full, Message, VoteAnswer};
use raftlog_raft::time::Time;
use raftlog_raft::{Config, Raft, RoleName};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Path;
use super::entries::{LEADER, Operations, TERM, empty_log, id};

/// Between two proposals.
const STEP: Duration = Duration::from_micros(10);

/// A leader, in its time.
struct Leader {
    raft: Raft,
    now: Time,
    operations: Operations,
    proposed: u64,
}

impl Leader {
    /// One that two others have elected, and whose first entry all have.
    fn elected() -> Self {
        let random = ChaCha8Rng::seed_from_u64(1);
        let raft = Raft::new(
            Config::new(id(LEADER)),
            HardState::default(),
            empty_log(),
            random,
            Time(0),
        );
        let now = raft.deadline();
        let mut leader = Self {
            raft,
            now,
            operations: Operations::new(),
            proposed: 0,
        };
        leader.raft.tick(now);
        for pre_vote in [true, false] {
            leader.carry_on();
            for voter in 2..=3 {
                let vote = Body::Vote {
                    pre_vote,
                    answer: VoteAnswer::Granted,
                };
                leader.raft.message(now, from(voter, vote));
            }
        }
        leader.carry_on();
        assert_eq!(leader.raft.role(), RoleName::Leader, "it has a majority");
        leader
    }

    /// Its disk and the others do at once what it wants, until it wants nothing.
    fn carry_on(&mut self) {
        loop {
            let effects = self.raft.flush(self.now);
            if effects.is_empty() {
                return;
            }
            self.come_back(come_back(effects));
        }
    }

    fn come_back(&mut self, Answers { persisted, messages }: Answers) {
        if let Some(ticket) = persisted {
            self.raft.persisted(self.now, ticket);
        }
        for message in messages {
            self.raft.message(self.now, message);
        }
    }

    fn next_proposal(&mut self) -> Proposal {
        self.proposed += 1;
        Proposal {
            id: self.proposed,
            stream: None,
            proposed: Proposed::Operation(self.operations.next()),
        }
    }

    fn propose(&mut self, proposal: Proposal) -> Vec<Effect> {
        self.now = self.now + STEP;
        self.raft.propose(self.now, proposal);
        self.raft.flush(self.now)
    }
}

fn from(member: u64, body: Body) -> Message {
    Message {
        from: id(member),
        to: id(LEADER),
        term: TERM,
        level: FeatureLevel::FIRST,
        body,
    }
}

/// What the leader hears of its disk and of the others.
#[derive(Default)]
struct Answers {
    persisted: Option<Ticket>,
    messages: Vec<Message>,
}

fn come_back(effects: Vec<Effect>) -> Answers {
    let mut answers = Answers::default();
    for effect in effects {
        match effect {
            Effect::Persist(persist) => answers.persisted = Some(persist.ticket),
            Effect::Send(Message {
                to,
                body: Body::AppendEntries(request),
                ..
            }) if request.round > 0 => {
                let last = request.entries.last();
                let matched = last.map_or(request.previous.index, |entry| entry.log_index);
                let response = AppendEntriesResponse {
                    round: request.round,
                    matched,
                    received: matched,
                    conflict: None,
                    read_requests: Vec::new(),
                    full: Full::default(),
                    supports: Supports::default(),
                    wants_snapshot: None,
                };
                answers
                    .messages
                    .push(from(to.get(), Body::AppendEntriesResponse(response)));
            }
            _ => {}
        }
    }
    answers
}

/// From a proposal to its effects: an entry to write and four messages.
pub(super) struct Proposals {
    leader: Leader,
    prepared: Vec<Proposal>,
    under_way: Vec<Effect>,
}

impl Proposals {
    pub(super) fn new() -> Self {
        Self {
            leader: Leader::elected(),
            prepared: Vec::new(),
            under_way: Vec::new(),
        }
    }
}

impl Path for Proposals {
    fn prepare(&mut self, times: usize) {
        self.leader
            .come_back(come_back(std::mem::take(&mut self.under_way)));
        self.leader.carry_on();
        self.prepared = (0..times).map(|_| self.leader.next_proposal()).collect();
        self.under_way = Vec::with_capacity(times * 8);
    }

    fn run(&mut self) {
        for proposal in self.prepared.drain(..) {
            let effects = self.leader.propose(proposal);
            self.under_way.extend(effects);
        }
    }
}

/// From the end of the own write and the answers of four followers to the client's answer and what the followers are told.
pub(super) struct Acknowledgements {
    leader: Leader,
    prepared: Vec<Answers>,
}

impl Acknowledgements {
    pub(super) fn new() -> Self {
        Self {
            leader: Leader::elected(),
            prepared: Vec::new(),
        }
    }
}

impl Path for Acknowledgements {
    fn prepare(&mut self, times: usize) {
        let proposed = |_| {
            let proposal = self.leader.next_proposal();
            come_back(self.leader.propose(proposal))
        };
        self.prepared = (0..times).map(proposed).collect();
    }

    fn run(&mut self) {
        for answers in self.prepared.drain(..) {
            self.leader.come_back(answers);
            black_box(self.leader.raft.flush(self.leader.now));
        }
    }
}
