//! Queries on their way to this node's own replicator. Unless it may be stale, a query first has to know up to where it has to
//! see, and then waits until the replicator has executed that much; only then is the executor asked. So what comes back is
//! linearizable through any node, whoever leads.
//!
//! A replicator that goes away takes what it was asked with it: all queries that wait for it are refused, since another node
//! answers them sooner than this one finds out when it comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftlog_proto::QUERIES_MAX;
use raftlog_raft::effect::RequestId;
use raftlog_raft::ids::{OperationIndex, Term};
use raftlog_raft::time::Time;

use super::api::{Leader, Output, Query, QueryRefusal, QueryRefused, QueryResult, ToReplicator, WhyRefused};

/// Queries without an answer, [`QUERIES_MAX`] at most. One that the replicator was asked counts until it has answered, whoever
/// still waits for that.
#[derive(Debug, Default)]
pub(super) struct Queries {
    waiting: BTreeMap<RequestId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    query: Bytes,
    until: Time,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Up to where it has to see is not known yet.
    Reading,
    /// The replicator has to execute this much first.
    Executing(OperationIndex),
    /// The replicator was asked; it had executed this much.
    Asked(OperationIndex),
    /// It was asked, and nobody waits for the answer any more.
    Abandoned,
}

impl Queries {
    /// Takes a query in, unless there are too many.
    pub(super) fn begin(&mut self, query: Query) -> Result<(), QueryRefusal> {
        let Query {
            id,
            query,
            allow_stale,
            until,
        } = query;
        if self.waiting.len() >= QUERIES_MAX {
            return Err(QueryRefusal::Backpressure);
        }
        let stage = if allow_stale {
            Stage::Executing(0)
        } else {
            Stage::Reading
        };
        self.waiting.insert(id, Waiting { query, until, stage });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next of them has waited for long enough.
    pub(super) fn deadline(&self) -> Time {
        let until = self.waiting.values().map(|waiting| waiting.until);
        until.min().unwrap_or(Time::NEVER)
    }

    /// Up to where it has to see is known; absent if there is no leader to ask, though one may be known.
    pub(super) fn read_ready(
        &mut self,
        id: RequestId,
        index: Result<OperationIndex, Option<Leader>>,
    ) -> Option<Output> {
        let waiting = self.waiting.get_mut(&id)?;
        if waiting.stage != Stage::Reading {
            return None;
        }
        match index {
            Ok(index) => {
                waiting.stage = Stage::Executing(index);
                None
            }
            Err(leader) => {
                self.waiting.remove(&id);
                Some(refused(id, QueryRefusal::NoLeader { leader }))
            }
        }
    }

    /// Asks the replicator what it can answer by now; `executed` is absent while it cannot be asked at all.
    pub(super) fn poll(&mut self, executed: Option<OperationIndex>, outputs: &mut Vec<Output>) {
        let Some(executed) = executed else {
            return self.replicator_lost(outputs);
        };
        for (&id, waiting) in &mut self.waiting {
            if matches!(waiting.stage, Stage::Executing(index) if index <= executed) {
                waiting.stage = Stage::Asked(executed);
                let query = std::mem::take(&mut waiting.query);
                outputs.push(Output::Replicator(ToReplicator::Query { id, query }));
            }
        }
    }

    /// Its stream ended, or cannot take queries.
    pub(super) fn replicator_lost(&mut self, outputs: &mut Vec<Output>) {
        self.waiting.retain(|&id, waiting| match waiting.stage {
            Stage::Reading => true,
            Stage::Executing(_) | Stage::Asked(_) => {
                outputs.push(refused(id, QueryRefusal::NoReplicator));
                false
            }
            Stage::Abandoned => false,
        });
    }

    /// The replicator has answered; the error is what is wrong with that.
    pub(super) fn answered(
        &mut self,
        id: RequestId,
        (index, term): (OperationIndex, Term),
        result: Result<Bytes, QueryRefused>,
    ) -> Result<Option<Output>, String> {
        let stage = self.waiting.get(&id).map(|waiting| waiting.stage);
        let answer = match stage {
            // A state machine that was started again has gone back since the query was sent.
            Some(Stage::Asked(executed)) if index < executed => {
                let message = format!(
                    "the executor answers from index {index}, after it had executed up to {executed}: ask again later"
                );
                let why = WhyRefused::Busy;
                Some(refused(id, QueryRefusal::Executor(QueryRefused { why, message })))
            }
            Some(Stage::Asked(_)) => Some(Output::QueryAnswered {
                id,
                result: result
                    .map(|result| QueryResult { result, index, term })
                    .map_err(QueryRefusal::Executor),
            }),
            Some(Stage::Abandoned) => None,
            Some(Stage::Reading | Stage::Executing(_)) | None => {
                return Err("the replicator answered a query that it was not asked".to_owned());
            }
        };
        self.waiting.remove(&id);
        Ok(answer)
    }

    /// Nobody waits for longer than until its deadline.
    pub(super) fn expire(&mut self, now: Time, executed: Option<OperationIndex>, outputs: &mut Vec<Output>) {
        self.waiting.retain(|&id, waiting| {
            if now < waiting.until {
                return true;
            }
            let why = match waiting.stage {
                Stage::Reading => QueryRefusal::NotReadInTime,
                Stage::Executing(index) => QueryRefusal::NotExecutedInTime { index, executed },
                Stage::Asked(_) => QueryRefusal::NotAnsweredInTime,
                Stage::Abandoned => return true,
            };
            let asked = why == QueryRefusal::NotAnsweredInTime;
            outputs.push(refused(id, why));
            (waiting.stage, waiting.until) = (Stage::Abandoned, Time::NEVER);
            asked
        });
    }
}

fn refused(id: RequestId, why: QueryRefusal) -> Output {
    let result = Err(why);
    Output::QueryAnswered { id, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(id: RequestId, allow_stale: bool) -> Query {
        Query {
            id,
            query: "last".into(),
            allow_stale,
            until: Time(1_000 + id),
        }
    }

    /// What comes out, in a few words.
    fn told(outputs: impl IntoIterator<Item = Output>) -> Vec<String> {
        let told = |output| match output {
            Output::Replicator(ToReplicator::Query { id, query }) => {
                format!("ask {id} {}", String::from_utf8_lossy(&query))
            }
            Output::QueryAnswered {
                id,
                result: Ok(answer),
            } => {
                format!("{id} at {} of {}", answer.index, answer.term)
            }
            Output::QueryAnswered { id, result: Err(why) } => format!("{id} {why:?}"),
            other => panic!("{other:?}"),
        };
        outputs.into_iter().map(told).collect()
    }

    fn poll(queries: &mut Queries, executed: Option<OperationIndex>) -> Vec<String> {
        let mut outputs = Vec::new();
        queries.poll(executed, &mut outputs);
        told(outputs)
    }

    fn begun(stale: &[(RequestId, bool)]) -> Queries {
        let mut queries = Queries::default();
        for (id, allow_stale) in stale {
            queries.begin(query(*id, *allow_stale)).unwrap();
        }
        queries
    }

    #[test]
    fn the_replicator_is_asked_once_it_has_executed_what_the_query_has_to_see() {
        let mut queries = begun(&[(1, false), (2, true)]);
        assert_eq!(poll(&mut queries, Some(0)), ["ask 2 last"]);
        assert_eq!(queries.read_ready(1, Ok(7)).map(|_| ()), None);
        assert!(poll(&mut queries, Some(6)).is_empty());
        assert_eq!(poll(&mut queries, Some(8)), ["ask 1 last"]);
        assert!(poll(&mut queries, Some(9)).is_empty(), "once");
        let answer = |queries: &mut Queries, id, index| {
            let answered = queries.answered(id, (index, 3), Ok("x".into()));
            answered.map(told)
        };
        assert_eq!(answer(&mut queries, 2, 0).unwrap(), ["2 at 0 of 3"]);
        // A state machine that was started again has gone back meanwhile: 8 was told.
        let gone_back = answer(&mut queries, 1, 7).unwrap();
        assert!(
            gone_back[0].contains("from index 7, after it had executed up to 8"),
            "{gone_back:?}"
        );
        assert!(answer(&mut queries, 1, 8).unwrap_err().contains("not asked"));
    }

    #[test]
    fn without_a_leader_or_a_replicator_it_is_refused() {
        let mut queries = begun(&[(1, false), (2, false), (3, true), (4, false)]);
        let no_leader = queries.read_ready(1, Err(None));
        assert_eq!(told(no_leader), ["1 NoLeader { leader: None }"]);
        assert!(queries.read_ready(2, Ok(5)).is_none());
        assert_eq!(poll(&mut queries, Some(4)), ["ask 3 last"]);
        assert_eq!(poll(&mut queries, None), ["2 NoReplicator", "3 NoReplicator"]);
        // That one still has to hear from the leader, and then finds a replicator or none.
        assert!(queries.read_ready(4, Ok(5)).is_none());
        assert_eq!(poll(&mut queries, Some(5)), ["ask 4 last"]);
        assert!(queries.answered(3, (5, 1), Ok("x".into())).is_err());
    }

    #[test]
    fn nobody_waits_beyond_a_deadline_and_what_was_asked_still_counts() {
        let mut queries = begun(&[(1, false), (2, false), (3, true)]);
        assert!(queries.read_ready(2, Ok(9)).is_none());
        poll(&mut queries, Some(4));
        assert_eq!(queries.deadline(), Time(1_001));
        let expire = |queries: &mut Queries, at| {
            let mut outputs = Vec::new();
            queries.expire(Time(at), Some(4), &mut outputs);
            told(outputs)
        };
        assert!(expire(&mut queries, 1_000).is_empty());
        assert_eq!(
            expire(&mut queries, 1_003),
            [
                "1 NotReadInTime",
                "2 NotExecutedInTime { index: 9, executed: Some(4) }",
                "3 NotAnsweredInTime"
            ]
        );
        assert_eq!((queries.waiting.len(), queries.deadline()), (1, Time::NEVER));
        assert!(queries.read_ready(1, Ok(9)).is_none(), "too late");
        assert!(matches!(queries.answered(3, (4, 1), Ok("x".into())), Ok(None)));
        assert!(queries.waiting.is_empty());
    }

    #[test]
    fn their_number_is_bounded() {
        let mut queries = Queries::default();
        for id in 1..=QUERIES_MAX as u64 {
            queries.begin(query(id, true)).unwrap();
        }
        poll(&mut queries, Some(1));
        queries.expire(Time(1 << 40), Some(1), &mut Vec::new());
        assert_eq!(
            queries.begin(query(1_000, true)),
            Err(QueryRefusal::Backpressure),
            "a replicator that does not answer is not asked for ever more"
        );
        queries.answered(1, (1, 1), Ok("x".into())).unwrap();
        assert_eq!(queries.begin(query(1_000, true)), Ok(()));
    }
}
