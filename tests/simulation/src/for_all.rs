//! What must hold where only the leader's replicator executes (design 6.6): who executes, what comes next, and what marks say of it.

use std::collections::BTreeMap;

use raftlog_raft::ids::{MemberId, NodeNumber, OperationIndex, Term};

use crate::invariants::{Verdict, demand};

/// What was seen of leaders' replicators.
#[derive(Debug, Default)]
pub(crate) struct ForAll {
    /// Committed marks, in their order: the term of each, and the highest so far.
    marks: Vec<(Term, OperationIndex)>,
    /// What was executed in each term, for good or not.
    executed: BTreeMap<Term, OperationIndex>,
    /// What leaders' replicators have said of it.
    durable: BTreeMap<Term, OperationIndex>,
    leading: BTreeMap<NodeNumber, Leading>,
    given: BTreeMap<NodeNumber, Given>,
}

/// A replicator that knows that its node leads.
#[derive(Debug, Clone, Copy)]
struct Leading {
    term: Term,
    /// Executed by leaders' replicators, as it was told.
    after: OperationIndex,
    life: u64,
    /// What its executor is to be given next; anew until it has been given something.
    next: Option<OperationIndex>,
}

/// What an executor was given last.
#[derive(Debug, Clone, Copy)]
struct Given {
    term: Term,
    life: u64,
    last: OperationIndex,
}

impl ForAll {
    /// A mark of that term is committed.
    pub(crate) fn committed(&mut self, term: Term, through: OperationIndex) {
        let through = through.max(self.mark());
        self.marks.push((term, through));
    }

    pub(crate) fn mark(&self) -> OperationIndex {
        self.marks.last().map_or(0, |(_, through)| *through)
    }

    fn mark_before(&self, term: Term) -> OperationIndex {
        let earlier = self.marks.partition_point(|(of, _)| *of < term);
        let last = earlier.checked_sub(1).and_then(|at| self.marks.get(at));
        last.map_or(0, |(_, through)| *through)
    }

    /// Whoever begins to lead knows what is marked by those before, and no replicator is told of marks that are not committed.
    pub(crate) fn hears(
        &mut self,
        node: NodeNumber,
        life: u64,
        leads: Option<Term>,
        after: OperationIndex,
    ) -> Verdict {
        let mark = self.mark();
        demand(after <= mark, "marks are committed", || {
            format!("replicator {node} hears that index {after} is executed, where {mark} is marked")
        })?;
        let Some(term) = leads else {
            self.leads_no_more(node);
            return Ok(());
        };
        let before = self.mark_before(term);
        let known = self.leading.get(&node).filter(|known| known.term == term);
        let next = known.and_then(|known| known.next);
        let leading = Leading {
            term,
            after,
            life,
            next,
        };
        self.leading.insert(node, leading);
        demand(after >= before, "a leader knows what is marked", || {
            format!("replicator {node} leads term {term} after index {after}, and {before} was marked before")
        })
    }

    pub(crate) fn leads_no_more(&mut self, node: NodeNumber) {
        self.leading.remove(&node);
    }

    /// Only who has been told that its node leads executes. It begins right behind the mark, or where it was in the same term and
    /// process, and goes on without gaps: so nothing is skipped, and repeated is what follows the mark.
    pub(crate) fn given(
        &mut self,
        node: NodeNumber,
        term: Option<Term>,
        first: OperationIndex,
        last: OperationIndex,
    ) -> Verdict {
        let leading = self
            .leading
            .get_mut(&node)
            .filter(|leading| Some(leading.term) == term);
        let Some(leading) = leading else {
            return demand(false, "only the leader's replicator executes", || {
                format!(
                    "replicator {node} executes index {first} in term {term:?}, and was told no such thing"
                )
            });
        };
        let given = self.given.get(&node);
        let own = given.filter(|given| given.term == leading.term && given.life == leading.life);
        let is_behind_the_mark = first == leading.after + 1;
        let is_next = if let Some(next) = leading.next {
            first == next || (is_behind_the_mark && first > next)
        } else {
            let goes_on = own.is_some_and(|own| leading.after < first && first <= own.last + 1);
            is_behind_the_mark || goes_on
        };
        leading.next = Some(last + 1);
        let (after, next, life) = (leading.after, leading.next, leading.life);
        let term = leading.term;
        self.given.insert(node, Given { term, life, last });
        demand(is_next, "executed right behind the mark, without gaps", || {
            format!(
                "replicator {node} executes {first} to {last} in term {term} after mark {after}, next was {next:?}"
            )
        })
    }

    pub(crate) fn executed(&mut self, node: NodeNumber, term: Term, index: OperationIndex) -> Verdict {
        let executed = self.executed.entry(term).or_default();
        *executed = index.max(*executed);
        let given = self.given.get(&node).map_or(0, |given| given.last);
        demand(index <= given, "executed in order", || {
            format!("replicator {node} executes index {index}, and was given up to {given}")
        })
    }

    /// What a replicator says is executed, it has executed itself, up to `own`, or others have, and it is marked.
    pub(crate) fn progressed(
        &mut self,
        node: NodeNumber,
        (executed, own): (OperationIndex, OperationIndex),
        (term, durable): (Option<Term>, OperationIndex),
    ) -> Verdict {
        if let Some(term) = term {
            let known = self.durable.entry(term).or_default();
            *known = durable.max(*known);
        }
        let mark = self.mark();
        demand(executed <= own.max(mark), "executed by somebody", || {
            format!(
                "replicator {node} says that index {executed} is executed; it has executed {own}, and {mark} is marked"
            )
        })
    }

    /// A mark is never ahead of what was executed in its leader's term, nor of what its replicator would still know after a crash.
    pub(crate) fn marks(&self, leader: MemberId, term: Term, through: OperationIndex) -> Verdict {
        let of = |what: &BTreeMap<Term, OperationIndex>| what.get(&term).copied().unwrap_or(0);
        let (executed, durable) = (of(&self.executed), of(&self.durable));
        demand(
            through <= executed && through <= durable,
            "marked is what is durably executed",
            || {
                format!(
                    "{leader} marks index {through} as executed in term {term}, in which {executed} are executed, {durable} for good"
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader() -> MemberId {
        MemberId::new(1).unwrap()
    }

    /// Operations up to 6 were executed in term 3 beside node 1, and 4 are marked.
    fn seen() -> ForAll {
        let mut seen = ForAll::default();
        seen.hears(1, 1, Some(3), 0).unwrap();
        seen.given(1, Some(3), 1, 6).unwrap();
        seen.executed(1, 3, 6).unwrap();
        seen.progressed(1, (6, 6), (Some(3), 4)).unwrap();
        seen.marks(leader(), 3, 4).unwrap();
        seen.committed(3, 4);
        seen
    }

    #[test]
    fn who_leads_next_begins_right_behind_the_mark() {
        for (first, is_right) in [(4, false), (5, true), (6, false), (7, false)] {
            let mut seen = seen();
            seen.hears(2, 1, Some(5), 4).unwrap();
            assert_eq!(seen.given(2, Some(5), first, 9).is_ok(), is_right, "{first}");
        }
        // Beside the same node, too, unless it is the same process in the same term.
        for (term, life, first, is_right) in [
            (5, 1, 7, false),
            (5, 1, 5, true),
            (3, 1, 7, true),
            (3, 2, 7, false),
            (3, 1, 8, false),
        ] {
            let mut seen = seen();
            seen.leads_no_more(1);
            seen.hears(1, life, Some(term), 4).unwrap();
            assert_eq!(
                seen.given(1, Some(term), first, 9).is_ok(),
                is_right,
                "{term} {life} {first}"
            );
        }
        let mut seen = seen();
        assert!(seen.hears(2, 1, Some(5), 3).is_err(), "4 is marked");
        assert!(seen.hears(2, 1, None, 5).is_err(), "5 is not");
    }

    #[test]
    fn who_does_not_lead_executes_nothing() {
        let mut seen = seen();
        assert!(seen.given(1, Some(3), 7, 8).is_ok());
        assert!(seen.given(1, Some(3), 10, 10).is_err(), "a gap");
        assert!(seen.given(2, Some(3), 5, 5).is_err());
        assert!(seen.given(1, None, 9, 9).is_err());
        seen.hears(1, 1, None, 4).unwrap();
        assert!(seen.given(1, Some(3), 9, 9).is_err());
    }

    #[test]
    fn marks_speak_of_what_is_executed_in_their_term_for_good() {
        let seen = seen();
        assert!(seen.marks(leader(), 3, 5).is_err(), "not for good");
        assert!(seen.marks(leader(), 4, 4).is_err(), "in another term");
        let mut seen = seen;
        assert!(seen.progressed(2, (4, 0), (None, 0)).is_ok());
        assert!(seen.progressed(2, (5, 0), (None, 0)).is_err());
    }
}
