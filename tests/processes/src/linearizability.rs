//! A whole run, with everything that anybody saw of it, against the log that was left in the end.
//!
//! The log is the witness: it says in which order everything happened, so nothing has to be searched. What is checked is
//! that this order explains every answer, and that it never contradicts the clock.

use crate::history::{self, Acknowledged, Logged, Unanswered};
use crate::real_time::{self, Span, append_place, seen_place};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What clients saw of a run. Times are in microseconds since it began.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What they were told to be committed.
    pub acknowledged: Vec<Acknowledged>,
    /// What they gave up: together with the above, everything that was submitted.
    pub unanswered: Vec<Unanswered>,
    /// What linearizable reads gave.
    pub reads: Vec<Read>,
    /// What nodes said of themselves.
    pub views: Vec<View>,
}

/// A linearizable read through a replicator, from some index up to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Node number of the replicator.
    pub replicator: u32,
    /// The index it began with.
    pub from_index: u64,
    /// What it gave.
    pub operations: Vec<Logged>,
    /// When it was asked for.
    pub began_micros: u64,
    /// When it had been answered.
    pub ended_micros: u64,
}

/// A node's own status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Node number.
    pub node: u32,
    /// Its identity: a node that lost its disk comes back as another member.
    pub member: u64,
    /// Its term.
    pub term: u64,
    /// Whether it says that it leads.
    pub leads: bool,
    /// Operation index.
    pub commit_index: u64,
    /// When it was asked.
    pub began_micros: u64,
    /// When it had answered.
    pub ended_micros: u64,
}

/// What must never be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// The logs and the acknowledgements alone do not fit.
    Log(history::Violation),
    /// The log holds what nobody submitted.
    Invented(Logged),
    /// A read gave another operation than the log holds there, or left one out.
    WrongRead {
        /// Where it differs from the log.
        index: u64,
        /// The read.
        read: Box<Read>,
    },
    /// A node said that more is committed than there is.
    BeyondTheLog(View),
    /// Two members said that they lead the same term.
    TwoLeaders(Box<[View; 2]>),
    /// A member's term went down, the first view having ended before the second was asked for.
    TermWentBack(Box<[View; 2]>),
    /// What began after something had ended stands before it in the log.
    OutOfRealTimeOrder {
        /// What had ended.
        earlier: Box<Seen>,
        /// What began after that.
        later: Box<Seen>,
    },
}

/// What real-time order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An operation that was acknowledged.
    Acknowledged(Acknowledged),
    /// One that was not, though it is in the log.
    Unanswered(Unanswered),
    /// A read.
    Read(Read),
    /// What a node said to be committed.
    View(View),
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy)]
enum Event<'a> {
    Acknowledged(&'a Acknowledged),
    Unanswered(&'a Unanswered),
    Read(&'a Read),
    View(&'a View),
}

impl Event<'_> {
    fn seen(self) -> Seen {
        match self {
            Self::Acknowledged(it) => Seen::Acknowledged(it.clone()),
            Self::Unanswered(it) => Seen::Unanswered(it.clone()),
            Self::Read(it) => Seen::Read(it.clone()),
            Self::View(it) => Seen::View(it.clone()),
        }
    }
}

/// Checks what [`history::check`] does, and beyond it: everything in the log was submitted; reads give what the log holds;
/// one leader a term, and terms that never go down; and in real-time order, besides acknowledged operations, those that
/// were given up and are in the log nevertheless, reads, and what nodes said to be committed.
///
/// # Errors
/// The first violation.
///
/// # Panics
/// Without a log to check.
pub fn check(history: &History, logs: &BTreeMap<u32, Vec<Logged>>) -> Result<(), Violation> {
    history::check(&history.acknowledged, logs).map_err(Violation::Log)?;
    let log = logs
        .values()
        .next()
        .expect("a history is checked against at least one replicator");
    check_nothing_invented(history, log)?;
    history.reads.iter().try_for_each(|read| check_read(read, log))?;
    check_views(&history.views, log)?;
    check_real_time_order(history, log)
}

fn check_nothing_invented(history: &History, log: &[Logged]) -> Result<(), Violation> {
    let acknowledged = history.acknowledged.iter().map(|answer| &answer.data);
    let unanswered = history.unanswered.iter().map(|operation| &operation.data);
    let submitted: BTreeSet<&Bytes> = acknowledged.chain(unanswered).collect();
    let invented = log.iter().find(|logged| !submitted.contains(&logged.data));
    invented.map_or(Ok(()), |logged| Err(Violation::Invented(logged.clone())))
}

fn check_read(read: &Read, log: &[Logged]) -> Result<(), Violation> {
    for (index, operation) in (read.from_index..).zip(&read.operations) {
        if logged_at(log, index) != Some(operation) {
            return Err(Violation::WrongRead {
                index,
                read: Box::new(read.clone()),
            });
        }
    }
    Ok(())
}

fn logged_at(log: &[Logged], index: u64) -> Option<&Logged> {
    let place = usize::try_from(index.checked_sub(1)?).ok()?;
    log.get(place)
}

fn check_views(views: &[View], log: &[Logged]) -> Result<(), Violation> {
    let last = log.last().map_or(0, |logged| logged.index);
    if let Some(view) = views.iter().find(|view| view.commit_index > last) {
        return Err(Violation::BeyondTheLog(view.clone()));
    }
    let mut leaders: BTreeMap<u64, &View> = BTreeMap::new();
    for view in views.iter().filter(|view| view.leads) {
        let first = *leaders.entry(view.term).or_insert(view);
        if first.member != view.member {
            return Err(Violation::TwoLeaders(Box::new([first.clone(), view.clone()])));
        }
    }
    let members: BTreeSet<u64> = views.iter().map(|view| view.member).collect();
    members
        .into_iter()
        .try_for_each(|member| check_terms(member, views))
}

fn check_terms(member: u64, views: &[View]) -> Result<(), Violation> {
    let of_member = views.iter().filter(|view| view.member == member);
    let spans: Vec<Span<&View>> = of_member
        .map(|view| Span {
            what: view,
            began: Some(view.began_micros),
            ended: Some(view.ended_micros),
            place: view.term,
        })
        .collect();
    real_time::check(&spans)
        .map_err(|(earlier, later)| Violation::TermWentBack(Box::new([earlier.clone(), later.clone()])))
}

fn check_real_time_order(history: &History, log: &[Logged]) -> Result<(), Violation> {
    let indexes: BTreeMap<&Bytes, u64> = log.iter().map(|logged| (&logged.data, logged.index)).collect();
    let acknowledged = history.acknowledged.iter().map(|answer| Span {
        what: Event::Acknowledged(answer),
        began: Some(answer.submitted_micros),
        ended: Some(answer.acknowledged_micros),
        place: append_place(answer.index),
    });
    let unanswered = history.unanswered.iter().filter_map(|operation| {
        Some(Span {
            what: Event::Unanswered(operation),
            began: Some(operation.submitted_micros),
            ended: None,
            place: append_place(*indexes.get(&operation.data)?),
        })
    });
    let reads = history.reads.iter().map(|read| Span {
        what: Event::Read(read),
        began: Some(read.began_micros),
        ended: Some(read.ended_micros),
        place: seen_place(last_read(read)),
    });
    // A node may lag as far as it likes, but what it says to be committed is.
    let views = history.views.iter().map(|view| Span {
        what: Event::View(view),
        began: None,
        ended: Some(view.ended_micros),
        place: seen_place(view.commit_index),
    });
    let spans: Vec<Span<Event>> = acknowledged.chain(unanswered).chain(reads).chain(views).collect();
    real_time::check(&spans).map_err(|(earlier, later)| Violation::OutOfRealTimeOrder {
        earlier: Box::new(earlier.seen()),
        later: Box::new(later.seen()),
    })
}

/// How far a read saw.
fn last_read(read: &Read) -> u64 {
    read.operations
        .last()
        .map_or(read.from_index.saturating_sub(1), |last| last.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(index: u64, data: &'static str) -> Logged {
        Logged {
            index,
            term: 1,
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    fn log() -> Vec<Logged> {
        vec![logged(1, "a"), logged(2, "b"), logged(3, "c")]
    }

    fn told(data: &'static str, index: u64, times: (u64, u64)) -> Acknowledged {
        Acknowledged {
            client: "c".into(),
            sequence: index,
            data: Bytes::from_static(data.as_bytes()),
            index,
            submitted_micros: times.0,
            acknowledged_micros: times.1,
            result: None,
        }
    }

    fn given_up(data: &'static str, submitted_micros: u64) -> Unanswered {
        Unanswered {
            data: Bytes::from_static(data.as_bytes()),
            submitted_micros,
        }
    }

    fn read(from_index: u64, operations: Vec<Logged>, times: (u64, u64)) -> Read {
        Read {
            replicator: 1,
            from_index,
            operations,
            began_micros: times.0,
            ended_micros: times.1,
        }
    }

    fn view(node: u32, term: u64, leads: bool, commit_index: u64, times: (u64, u64)) -> View {
        View {
            node,
            member: node.into(),
            term,
            leads,
            commit_index,
            began_micros: times.0,
            ended_micros: times.1,
        }
    }

    /// "a" and "c" were acknowledged, "b" was given up though it is in the log, "z" is nowhere.
    fn good() -> History {
        History {
            acknowledged: vec![told("a", 1, (0, 10)), told("c", 3, (20, 30))],
            unanswered: vec![given_up("b", 5), given_up("z", 5)],
            reads: vec![],
            views: vec![],
        }
    }

    fn violation(change: impl FnOnce(&mut History)) -> Violation {
        let mut history = good();
        change(&mut history);
        check(&history, &BTreeMap::from([(1, log())])).expect_err("a bad history passed")
    }

    fn passes(change: impl FnOnce(&mut History)) {
        let mut history = good();
        change(&mut history);
        assert_eq!(check(&history, &BTreeMap::from([(1, log())])), Ok(()));
    }

    #[test]
    fn good_histories_pass() {
        passes(|_| {});
        passes(|history| {
            history.reads = vec![
                // "a" may be seen before its client is told.
                read(1, vec![logged(1, "a")], (1, 2)),
                read(1, vec![logged(1, "a"), logged(2, "b")], (12, 14)),
                read(3, vec![], (12, 19)),
                read(3, vec![logged(3, "c")], (31, 32)),
                read(4, vec![], (31, 32)),
            ];
            history.views = vec![
                view(1, 1, true, 1, (10, 20)),
                // It does not know yet that it was replaced, and lags.
                view(1, 1, true, 0, (40, 50)),
                view(2, 2, true, 3, (40, 50)),
                view(1, 2, false, 3, (45, 55)),
            ];
        });
        assert_eq!(check(&History::default(), &BTreeMap::from([(1, vec![])])), Ok(()));
    }

    #[test]
    fn what_the_log_alone_tells_is_found_too() {
        let lost = told("z", 2, (0, 10));
        let found = violation(|history| history.acknowledged.push(lost.clone()));
        assert_eq!(found, Violation::Log(history::Violation::Lost(Box::new(lost))));
    }

    #[test]
    fn an_operation_that_nobody_submitted_is_found() {
        let found = violation(|history| history.unanswered.clear());
        assert_eq!(found, Violation::Invented(logged(2, "b")));
    }

    #[test]
    fn reads_of_something_else_are_found() {
        let another_term = Logged {
            term: 2,
            ..logged(2, "b")
        };
        for (from, operations, index) in [
            (1, vec![logged(1, "x")], 1),
            (1, vec![logged(1, "a"), logged(3, "c")], 2),
            (1, vec![logged(2, "b")], 1),
            (2, vec![another_term], 2),
            (3, vec![logged(3, "c"), logged(4, "d")], 4),
        ] {
            let bad = read(from, operations, (40, 50));
            let found = violation(|history| history.reads.push(bad.clone()));
            let read = Box::new(bad);
            assert_eq!(found, Violation::WrongRead { index, read });
        }
    }

    fn out_of_order(earlier: Seen, later: Seen) -> Violation {
        let (earlier, later) = (Box::new(earlier), Box::new(later));
        Violation::OutOfRealTimeOrder { earlier, later }
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_before_it_is_found() {
        for (from, operations) in [
            (1, vec![logged(1, "a"), logged(2, "b")]),
            (3, vec![]),
            (1, vec![]),
        ] {
            let stale = read(from, operations, (31, 40));
            let found = violation(|history| history.reads.push(stale.clone()));
            let acknowledged = Seen::Acknowledged(told("c", 3, (20, 30)));
            assert_eq!(found, out_of_order(acknowledged, Seen::Read(stale)));
        }
    }

    #[test]
    fn a_read_that_sees_less_than_one_before_it_is_found() {
        let (more, less) = (
            read(2, vec![logged(2, "b")], (11, 12)),
            read(1, vec![logged(1, "a")], (13, 14)),
        );
        let found = violation(|history| history.reads = vec![less.clone(), more.clone()]);
        assert_eq!(found, out_of_order(Seen::Read(more), Seen::Read(less)));
    }

    #[test]
    fn a_read_that_sees_what_is_submitted_later_is_found() {
        let early = read(1, log(), (11, 12));
        let found = violation(|history| history.reads.push(early.clone()));
        let later = Seen::Acknowledged(told("c", 3, (20, 30)));
        assert_eq!(found, out_of_order(Seen::Read(early), later));
        // Also where its client was never told.
        let early = read(1, vec![logged(1, "a"), logged(2, "b")], (2, 4));
        let found = violation(|history| history.reads.push(early.clone()));
        let later = Seen::Unanswered(given_up("b", 5));
        assert_eq!(found, out_of_order(Seen::Read(early), later));
    }

    #[test]
    fn an_operation_that_was_given_up_does_not_move_into_the_past() {
        let late = given_up("b", 31);
        let found = violation(|history| history.unanswered = vec![late.clone()]);
        let earlier = Seen::Acknowledged(told("c", 3, (20, 30)));
        assert_eq!(found, out_of_order(earlier, Seen::Unanswered(late)));
    }

    #[test]
    fn commit_indexes_that_were_not_true_are_found() {
        let beyond = view(1, 1, false, 4, (40, 50));
        let found = violation(|history| history.views.push(beyond.clone()));
        assert_eq!(found, Violation::BeyondTheLog(beyond));
        // What is submitted only later was not committed.
        let early = view(1, 1, true, 3, (11, 12));
        let found = violation(|history| history.views.push(early.clone()));
        let later = Seen::Acknowledged(told("c", 3, (20, 30)));
        assert_eq!(found, out_of_order(Seen::View(early), later));
    }

    #[test]
    fn two_leaders_of_a_term_and_terms_that_go_back_are_found() {
        let (one, other) = (view(1, 7, true, 0, (0, 1)), view(2, 7, true, 0, (90, 91)));
        let found = violation(|history| history.views = vec![one.clone(), other.clone()]);
        assert_eq!(found, Violation::TwoLeaders(Box::new([one, other])));
        let (high, low) = (view(1, 7, false, 0, (0, 1)), view(1, 6, false, 0, (2, 3)));
        let found = violation(|history| history.views = vec![low.clone(), high.clone()]);
        assert_eq!(
            found,
            Violation::TermWentBack(Box::new([high.clone(), low.clone()]))
        );
        // It lost its disk in between, and knows of no terms.
        let reborn = View { member: 9, ..low };
        passes(|history| history.views = vec![reborn, high]);
    }
}
