//! What a node may say, and what comes of it (design 6.4).

use super::rig::{NODE, Rig, cluster, fatal, follows, log, member};
use crate::core::{
    Effect, Event, Notice, Operation, Parent, Place, Position, Refusal, StartAction, Status, Story, StreamId,
};

/// How the replicator took it.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// The log ends here now, and this is committed.
    Holds(u64, u64),
    Refused,
    Fatal,
}

fn taken(rig: &mut Rig) -> Taken {
    let effects = rig.take_others();
    if fatal(&effects).is_some() {
        return Taken::Fatal;
    }
    if effects
        .iter()
        .any(|effect| matches!(effect, Effect::Close(_, Refusal::Protocol { .. })))
    {
        return Taken::Refused;
    }
    let Status { last, commit, .. } = rig.core.status();
    Taken::Holds(last.index, commit.index)
}

#[test]
fn how_to_start() {
    use StartAction::{CutTo, ResumeFrom, WaitUntil};
    // It holds 5, of which 3 are committed.
    for (action, commit, expected) in [
        (ResumeFrom(6), 3, Taken::Holds(5, 3)),
        (ResumeFrom(6), 5, Taken::Holds(5, 5)),
        (ResumeFrom(6), 99, Taken::Holds(5, 5)),
        (ResumeFrom(6), 1, Taken::Holds(5, 3)),
        // The logs agree up to 3 only: what the node has committed beyond may be something else than what is here.
        (ResumeFrom(4), 5, Taken::Holds(5, 3)),
        (ResumeFrom(7), 5, Taken::Refused),
        (ResumeFrom(3), 5, Taken::Refused),
        (ResumeFrom(0), 5, Taken::Refused),
        (ResumeFrom(u64::MAX), 5, Taken::Refused),
        (CutTo(4), 3, Taken::Holds(4, 3)),
        (CutTo(3), 5, Taken::Holds(3, 3)),
        (CutTo(5), 5, Taken::Holds(5, 5)),
        (CutTo(6), 5, Taken::Refused),
        (CutTo(2), 2, Taken::Fatal),
        (CutTo(0), 0, Taken::Fatal),
        (WaitUntil(3), 1, Taken::Holds(5, 3)),
    ] {
        let (mut rig, _) = Rig::holding(&log(&[1, 1, 1, 1, 1]), 3);
        rig.started(action, commit);
        assert_eq!(taken(&mut rig), expected, "{action:?}, commit {commit}");
    }
}

#[test]
fn what_is_fed() {
    let ours = log(&[1, 1, 1, 1, 1]);
    let theirs = log(&[1, 1, 1, 2, 2, 2]);
    let bad_hash = Operation {
        running_hash: 1,
        ..follows(ours[4].place(), 1, "x")
    };
    let empty = follows(ours[4].place(), 1, "");
    let long = follows(ours[4].place(), 1, vec![0; (1 << 20) + 1]);
    let other_commit = follows(ours[1].place(), 7, "x");
    let after = follows(ours[4].place(), 1, "x");
    // It holds 5, of which 3 are committed.
    for (name, operations, commit, expected) in [
        ("nothing", &[][..], 3, Taken::Holds(5, 3)),
        ("a commit index alone", &[], 4, Taken::Holds(5, 4)),
        ("a commit index from the past", &[], 1, Taken::Holds(5, 3)),
        ("a commit index beyond", &[], 9, Taken::Holds(5, 5)),
        (
            "the next one",
            std::slice::from_ref(&after),
            6,
            Taken::Holds(6, 6),
        ),
        ("the same once more", &ours[3..], 5, Taken::Holds(5, 5)),
        ("another tail", &theirs[3..], 3, Taken::Holds(6, 3)),
        ("a shorter other tail", &theirs[3..4], 9, Taken::Holds(4, 4)),
        ("a gap", &[follows(after.place(), 1, "y")], 3, Taken::Refused),
        (
            "a step back within",
            &[after.clone(), after.clone()],
            3,
            Taken::Refused,
        ),
        ("an empty operation", &[empty], 3, Taken::Refused),
        ("one that is too long", &[long], 3, Taken::Refused),
        ("a wrong hash", &[bad_hash], 3, Taken::Fatal),
        ("a tail of another past", &theirs[4..5], 3, Taken::Fatal),
        ("a committed one", &[other_commit], 3, Taken::Fatal),
        ("a committed one once more", &ours[2..3], 3, Taken::Fatal),
    ] {
        let (mut rig, stream) = Rig::holding(&ours, 3);
        rig.feed(stream, operations, commit);
        assert_eq!(taken(&mut rig), expected, "{name}");
    }
}

#[test]
fn errors_name_the_index() {
    let ours = log(&[1, 1, 1]);
    let (mut rig, stream) = Rig::holding(&ours, 3);
    rig.feed(
        stream,
        &[Operation {
            running_hash: 0,
            ..follows(ours[2].place(), 1, "x")
        }],
        3,
    );
    let effects = rig.take_others();
    let why = fatal(&effects).unwrap();
    assert!(
        why.contains("operation 4 of node 1") && !why.contains('\n'),
        "{why}"
    );
    let (mut rig, _) = Rig::holding(&ours, 3);
    rig.started(StartAction::CutTo(1), 1);
    let effects = rig.take_others();
    let why = fatal(&effects).unwrap();
    assert!(
        why.contains("index 2 dropped") && why.contains("commit index 3"),
        "{why}"
    );
    // Nothing moves any more.
    rig.handle(Event::Wake);
    assert!(rig.take_others().is_empty());
}

#[test]
fn the_first_thing_a_node_hears_is_the_position() {
    let ours = log(&[1, 1, 2]);
    let (mut rig, _) = Rig::holding(&ours, 2);
    let stream = rig.opened();
    let expected = Position {
        cluster: Some(cluster(1)),
        member: Some(member(11)),
        first_index: 1,
        last: ours[2].place(),
        commit: ours[1].place(),
        executed: ours[1].place(),
        ..Position::default()
    };
    let effects = rig.take_others();
    assert!(
        matches!(effects[..], [Effect::Close(StreamId(1), Refusal::Replaced { node: NODE }),
            Effect::Position(s, position)] if s == stream && position == expected),
        "{effects:?}"
    );
    assert_eq!(Rig::new().core.position(), Position::default());
}

#[test]
fn another_cluster_and_another_node_are_refused_and_the_process_stays() {
    let ours = log(&[1, 1]);
    let (mut rig, old) = Rig::holding(&ours, 2);
    rig.handle(Event::NodeClosed { stream: old });
    assert!(rig.core.readiness().ready, "its node being away does not matter");
    let wrong = rig.opened_by(cluster(2), member(11), NODE);
    let effects = rig.take_others();
    let [
        Effect::Notice(Notice::Refused(_)),
        Effect::Close(stream, refusal @ Refusal::WrongCluster { .. }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*stream, wrong);
    for id in [cluster(1), cluster(2)] {
        assert!(refusal.to_string().contains(&id.to_string()), "{refusal}");
    }
    assert!(!rig.core.readiness().ready);
    assert_eq!(rig.core.readiness().reason, refusal.to_string());
    rig.opened_by(cluster(1), member(11), 3);
    assert!(matches!(
        rig.take_others()[..],
        [_, Effect::Close(_, Refusal::WrongNode { node: 3, ours: NODE })]
    ));
    // The right one is welcome, and a stray one does not disturb it.
    rig.started(StartAction::ResumeFrom(3), 2);
    rig.opened_by(cluster(2), member(11), NODE);
    assert!(rig.core.readiness().ready);
    assert_eq!(rig.core.status().connected, Some(NODE));
}

/// A recovered cluster has its parent's operations up to a place: what is at or below it goes on, what is beyond is another past.
#[test]
fn a_recovered_cluster_adopts_what_its_parent_had_and_no_more() {
    let ours = log(&[1, 1, 2]);
    let parent = |index: usize, cluster| Parent {
        cluster,
        index: ours[index - 1].index,
        running_hash: ours[index - 1].running_hash,
    };
    for (name, committed, parent, welcome) in [
        ("all of it", 2, parent(2, cluster(1)), true),
        ("less than it", 1, parent(3, cluster(1)), true),
        (
            "another past",
            2,
            Parent {
                running_hash: 7,
                ..parent(2, cluster(1))
            },
            false,
        ),
        ("another parent", 2, parent(2, cluster(3)), false),
    ] {
        let (mut rig, old) = Rig::holding(&ours, committed);
        rig.handle(Event::NodeClosed { stream: old });
        rig.take_others();
        let stream = rig.opened_with(cluster(2), member(12), NODE, Some(parent));
        let effects = rig.take_others();
        let greeted = matches!(effects[..], [Effect::Position(..)]);
        assert_eq!(greeted, welcome, "{name}: {effects:?}");
        if !welcome {
            continue;
        }
        // A node that is behind knows nothing yet.
        for (action, cluster) in [
            (StartAction::WaitUntil(committed), cluster(1)),
            (StartAction::CutTo(committed), cluster(2)),
        ] {
            rig.handle(Event::Start {
                stream,
                action,
                commit: committed,
            });
            assert_eq!(rig.core.position().cluster, Some(cluster), "{name}");
        }
        let effects = rig.take_others();
        let adopted = |effect: &Effect| matches!(effect, Effect::Notice(Notice::Adopted { .. }));
        assert!(effects.iter().any(adopted), "{name}: {effects:?}");
        rig.settle();
        rig.restart(true);
        assert_eq!(rig.core.position().cluster, Some(cluster(2)), "{name}");
    }
}

#[test]
fn what_is_beyond_a_recovery_is_given_up_for_the_own_node_alone() {
    let ours = log(&[1, 1, 2]);
    let parent = Parent {
        cluster: cluster(1),
        index: 2,
        running_hash: ours[1].running_hash,
    };
    for (name, committed, node, parent, given_up) in [
        ("beyond", 3, NODE, Some(parent), true),
        ("up to there", 2, NODE, Some(parent), false),
        ("another node", 3, NODE + 1, Some(parent), false),
        ("no recovery", 3, NODE, None, false),
    ] {
        let (mut rig, old) = Rig::holding(&ours, committed);
        rig.handle(Event::NodeClosed { stream: old });
        rig.take_others();
        rig.opened_with(cluster(2), member(12), node, parent);
        let effects = rig.take_others();
        let of_ours =
            |effect: &Effect| matches!(effect, Effect::GivenUp { cluster: of, .. } if *of == cluster(1));
        assert_eq!(effects.iter().any(of_ours), given_up, "{name}: {effects:?}");
        assert!(
            !given_up || effects.len() == 1,
            "nothing comes after it: {effects:?}"
        );
    }
    let (mut rig, _) = Rig::holding(&ours, 3);
    rig.take_others();
    rig.opened_with(cluster(2), member(12), NODE, Some(parent));
    let effects = rig.take_others();
    let refused = |effect: &Effect| matches!(effect, Effect::Close(_, Refusal::OtherPast { .. }));
    assert!(
        effects.iter().any(refused),
        "its own node is connected: {effects:?}"
    );
}

#[test]
fn a_new_member_of_the_cluster_is_recorded() {
    let (mut rig, _) = Rig::holding(&log(&[1, 1]), 2);
    let stream = rig.opened_by(cluster(1), member(12), NODE);
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(3),
        commit: 2,
    });
    let before = Some(member(11));
    let told = rig.take_others().into_iter().any(|effect| {
        matches!(effect, Effect::Notice(Notice::Paired { member: m, before: b, .. }) if m == member(12) && b == before)
    });
    assert!(told);
    rig.settle();
    rig.restart(true);
    let position = rig.core.position();
    assert_eq!(
        (position.cluster, position.member),
        (Some(cluster(1)), Some(member(12)))
    );
    assert_eq!(position.commit.index, 2);
}

#[test]
fn a_stream_that_was_replaced_says_nothing_any_more() {
    let ours = log(&[1, 1, 1]);
    let (mut rig, old) = Rig::holding(&ours[..2], 2);
    let new = rig.started(StartAction::ResumeFrom(3), 2);
    rig.feed(old, &ours[2..], 3);
    rig.handle(Event::Start {
        stream: old,
        action: StartAction::CutTo(0),
        commit: 0,
    });
    rig.handle(Event::NodeClosed { stream: old });
    assert_eq!(rig.core.progress().last, 2);
    rig.feed(new, &ours[2..], 3);
    assert_eq!(rig.core.progress().commit, 3);
}

#[test]
fn a_node_that_has_to_catch_up_says_again_how_to_start() {
    let ours = log(&[1, 1, 1, 1]);
    let (mut rig, _) = Rig::holding(&ours[..3], 3);
    let stream = rig.started(StartAction::WaitUntil(3), 1);
    assert_eq!(rig.core.progress().commit, 3);
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(4),
        commit: 3,
    });
    rig.feed(stream, &ours[3..], 4);
    assert_eq!(rig.core.progress().commit, 4);
}

#[test]
fn operations_before_the_start_are_refused() {
    let ours = log(&[1]);
    let mut rig = Rig::new();
    let stream = rig.opened();
    rig.feed(stream, &ours, 1);
    assert_eq!(taken(&mut rig), Taken::Refused);
    assert_eq!(rig.core.position().last, Place::default());
}

#[test]
fn it_is_ready_once_it_holds_what_was_committed_when_it_started() {
    let ours = log(&[1, 1, 1]);
    let mut rig = Rig::new();
    let mut reasons = vec![rig.core.readiness()];
    let stream = rig.opened();
    reasons.push(rig.core.readiness());
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(1),
        commit: 2,
    });
    reasons.push(rig.core.readiness());
    rig.feed(stream, &ours[..1], 1);
    reasons.push(rig.core.readiness());
    assert!(reasons.iter().all(|readiness| !readiness.ready), "{reasons:?}");
    let texts: Vec<&str> = reasons
        .iter()
        .map(|readiness| readiness.reason.as_str())
        .collect();
    assert_eq!(
        texts,
        [
            "waiting for node 1 to connect",
            "waiting for node 1 to say where to start",
            "catching up: holds 0 of 2 committed operations",
            "catching up: holds 1 of 2 committed operations",
        ]
    );
    rig.feed(stream, &ours[1..2], 2);
    assert!(rig.core.readiness().ready, "execution does not count");
    rig.handle(Event::NodeClosed { stream });
    assert!(rig.core.readiness().ready);
}

#[test]
fn the_story_is_told_in_order() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.take_others();
    rig.core.handle(Event::Feed {
        stream,
        operations: log(&[1, 1]),
        commit: 1,
    });
    let story: Vec<String> = rig
        .core
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Story(Story::Replicated { from }) => Some(format!("replicated {from}")),
            Effect::Story(Story::Committed { commit, total }) => Some(format!("commit {commit} of {total}")),
            Effect::Execute(run) => Some(format!("execute {}", run.operations[0].index)),
            _ => None,
        })
        .collect();
    assert_eq!(story, ["replicated 1", "commit 1 of 2", "execute 1"]);
}
