//! What clients do: they want something now and then, ask any node, and ask again elsewhere.

use std::time::Duration;

use raftlog_raft::ids::{NodeNumber, OperationIndex};
use raftlog_server::node::{Committed, Refusal, RequestId};
use rand::RngExt;

use super::Cluster;
use crate::client::{Client, ClientNumber, Request, Session};
use crate::coverage::Seen;
use crate::happening::{Happening, Target};

impl Cluster {
    pub(super) fn begin_clients(&mut self) {
        for number in 0..self.options.clients {
            let session = match number % 4 {
                3 => Session::None,
                0 | 2 if !self.options.expires_sessions() => {
                    Session::Named(format!("client-{number}").into())
                }
                _ => Session::Opened(None),
            };
            self.clients.push(Client::new(session));
            let at = self.soon(Duration::from_secs(1));
            self.agenda.add(at, Target::World, Happening::Wish(number));
        }
    }

    fn client(&mut self, number: ClientNumber) -> &mut Client {
        let at = usize::try_from(number).expect("clients are few");
        self.clients.get_mut(at).expect("clients are numbered")
    }

    /// Some ask elsewhere soon, and so find a new leader while others still wait for the one before.
    fn patience(&mut self) -> Duration {
        let least = self.options.election_timeout / 4;
        least + self.span(self.options.election_timeout * 3)
    }

    /// A client may want something now, and will again.
    pub(super) fn wish(&mut self, number: ClientNumber) {
        if self.has_healed() {
            return;
        }
        let at = self.soon(self.options.rest_max);
        self.agenda.add(at, Target::World, Happening::Wish(number));
        if self.one_in(self.options.read_of) {
            let pod = self.any_pod();
            self.ask_to_read(pod);
        } else if !self.are_clients_quiet() {
            self.begin_operation(number);
        }
    }

    pub(super) fn begin_operation(&mut self, number: ClientNumber) {
        let window = self.options.window;
        let bytes = self.random.random_range(1..=self.options.operation_bytes_max);
        let client = self.client(number);
        if client.needs_session() {
            // 0 stands for the session itself.
            if client.under_way.is_empty() {
                client.under_way.insert(
                    0,
                    crate::client::UnderWay {
                        data: bytes::Bytes::new(),
                        latest: 0,
                    },
                );
                self.try_submit(number, 0);
            }
        } else if client.under_way.len() < window {
            let sequence = client.begin(number, bytes);
            self.try_submit(number, sequence);
        }
    }

    /// Some node is asked, and sometimes two at once.
    fn try_submit(&mut self, number: ClientNumber, sequence: u64) {
        let has_session = self.client(number).session != Session::None && sequence > 0;
        let times = if has_session && self.one_in(8) { 2 } else { 1 };
        for _ in 0..times {
            let to = self.any_pod();
            self.submit_at(number, sequence, to, Duration::ZERO);
        }
    }

    fn submit_at(&mut self, number: ClientNumber, sequence: u64, to: NodeNumber, pause: Duration) {
        let client = self.client(number);
        let request = if sequence == 0 {
            Request::OpenSession { client: number }
        } else {
            match client.request(number, sequence) {
                Some(request) => request,
                None => return,
            }
        };
        self.last_request += 1;
        let id = self.last_request;
        if let Some(under_way) = self.client(number).under_way.get_mut(&sequence) {
            under_way.latest = id;
        }
        self.requests.insert(id, request);
        self.on_its_way(pause, Target::Node(to, None), Happening::Submit(id));
        let impatient = self.now + pause + self.patience();
        self.agenda
            .add(impatient, Target::World, Happening::Impatient(id));
    }

    /// What clients send and hear gets lost, too.
    fn on_its_way(&mut self, pause: Duration, target: Target, happening: Happening) {
        if self.one_in(self.options.lost_of) {
            return self.count(Seen::AnswerLost);
        }
        let at = self.soon(self.options.delay_max) + pause;
        self.agenda.add(at, target, happening);
    }

    /// Others look for it at once and everywhere, where clients read at all.
    fn read_what_was_acknowledged(&mut self) {
        if self.options.read_of > 0 && self.one_in(2) && !self.has_healed() {
            for pod in self.numbers() {
                self.ask_to_read(pod);
            }
        }
    }

    fn ask_to_read(&mut self, pod: NodeNumber) {
        self.last_request += 1;
        let id = self.last_request;
        self.requests.insert(id, Request::Read { floor: self.known });
        let target = if self.random.random_bool(0.5) {
            Target::Node(pod, None)
        } else {
            Target::Replicator(pod, None)
        };
        self.on_its_way(Duration::ZERO, target, Happening::Read(id));
    }

    /// From there on a read is linearizable.
    pub(super) fn read_ready(&mut self, id: RequestId, index: Option<OperationIndex>, seen: Seen) {
        let Some(Request::Read { floor }) = self.requests.remove(&id) else {
            return;
        };
        match index {
            Some(index) => {
                self.count(seen);
                let verdict = self.invariants.read(floor, index);
                self.judge(verdict);
                self.on_its_way(Duration::ZERO, Target::World, Happening::HasRead(index));
            }
            None => self.count(Seen::ReadRefused),
        }
    }

    /// A node has decided about a request: what it says is judged before the client hears it, if it ever does.
    pub(super) fn node_answers(&mut self, id: RequestId, result: Result<Committed, Refusal>) {
        if let Some(Request::Measured { asked, .. }) = self.requests.get(&id) {
            self.measured.push(result.map(|_| self.now - *asked));
            self.requests.remove(&id);
            return;
        }
        if let (Ok(committed), Some(Request::Operation { data, .. })) = (&result, self.requests.get(&id)) {
            let verdict = self.invariants.acknowledged(data, committed.operation_index);
            self.judge(verdict);
        }
        if result == Err(Refusal::SessionExpired) {
            let verdict = self.invariants.expired(self.options.bounds.sessions_max);
            self.judge(verdict);
        }
        if let Err(refusal) = &result {
            self.count(match refusal {
                Refusal::NotLeader { .. } => Seen::RefusedNotLeader,
                Refusal::NotAppended(_) | Refusal::InvalidOperation(_) => Seen::RefusedNotAppended,
                Refusal::Backpressure => Seen::RefusedBackpressure,
                Refusal::DiskFull => Seen::RefusedDiskFull,
                Refusal::LogFull => Seen::RefusedLogFull,
                Refusal::SessionExpired => Seen::RefusedExpired,
                Refusal::SequenceForgotten => Seen::RefusedForgotten,
                Refusal::LeadershipLost => Seen::LeadershipLost,
            });
        }
        self.on_its_way(Duration::ZERO, Target::World, Happening::Answered(id, result));
    }

    pub(super) fn answered(&mut self, id: RequestId, result: Result<Committed, Refusal>) {
        let Some(request) = self.requests.get(&id).cloned() else {
            return;
        };
        match (result, request) {
            (Ok(committed), Request::Operation { client, sequence, .. }) => {
                self.requests.remove(&id);
                self.known = self.known.max(committed.operation_index);
                let client = self.client(client);
                if client.under_way.remove(&sequence).is_some() {
                    client.acknowledged += 1;
                    self.count(Seen::Acknowledged);
                    self.read_what_was_acknowledged();
                } else {
                    self.count(Seen::AcknowledgedAgain);
                }
            }
            (Ok(committed), Request::OpenSession { client: number }) => {
                self.requests.remove(&id);
                let client = self.client(number);
                client.under_way.remove(&0);
                if client.needs_session() {
                    let id = committed.session_id();
                    client.session = Session::Opened(Some(id.as_str().into()));
                    self.count(Seen::SessionOpened);
                    self.tell(|| format!("client {number} has session {id}"));
                }
                if self.has_healed() {
                    self.begin_operation(number);
                }
            }
            (Err(refusal), request) => self.refused(id, &request, &refusal),
            (Ok(_), Request::Read { .. } | Request::Measured { .. }) => {}
        }
    }

    /// What was surely not appended is tried again by everybody; what may have been, only within a session.
    fn refused(&mut self, id: RequestId, request: &Request, refusal: &Refusal) {
        let (number, sequence) = match request {
            Request::Operation { client, sequence, .. } => (*client, *sequence),
            Request::OpenSession { client } => (*client, 0),
            Request::Read { .. } | Request::Measured { .. } => return,
        };
        self.requests.remove(&id);
        if self
            .client(number)
            .under_way
            .get(&sequence)
            .is_none_or(|under_way| under_way.latest != id)
        {
            return;
        }
        if *refusal == Refusal::SessionExpired {
            self.tell(|| format!("the session of client {number} has expired"));
            return self.client(number).session_expired();
        }
        if *refusal == Refusal::LeadershipLost && self.client(number).session == Session::None {
            self.client(number).under_way.remove(&sequence);
            return;
        }
        let pause = self.span(Duration::from_millis(500));
        match refusal {
            Refusal::NotLeader { leader: Some(leader) } if !self.one_in(4) => {
                self.submit_at(number, sequence, leader.node, Duration::ZERO);
            }
            _ => {
                let to = self.any_pod();
                self.submit_at(number, sequence, to, pause);
            }
        }
    }

    /// No answer came in time.
    pub(super) fn impatient(&mut self, id: RequestId) {
        let (number, sequence) = match self.requests.get(&id) {
            Some(Request::Operation { client, sequence, .. }) => (*client, *sequence),
            Some(Request::OpenSession { client }) => (*client, 0),
            _ => return,
        };
        let client = self.client(number);
        if client
            .under_way
            .get(&sequence)
            .is_none_or(|under_way| under_way.latest != id)
        {
            // Answered meanwhile, or asked again.
            return;
        }
        if client.session == Session::None {
            client.under_way.remove(&sequence);
            return self.count(Seen::TimedOut);
        }
        self.count(Seen::TimedOut);
        self.try_submit(number, sequence);
    }

    /// Everybody has one more wish.
    pub(super) fn everybody_wishes(&mut self) {
        for number in 0..self.options.clients {
            self.begin_operation(number);
        }
    }

    pub(super) fn are_clients_done(&self) -> bool {
        self.clients.iter().all(|client| client.under_way.is_empty())
    }
}
