//! The cores are pure: whole clusters elect, commit and execute in one thread, the same way for the same seed.

use simulation::{Cluster, Options, Outcome, Variation};

fn run(options: &Options) -> Outcome {
    let outcome = Cluster::new(options.clone()).run();
    if let Some(violation) = &outcome.violation {
        let story = outcome.story.join("\n");
        panic!(
            "{story}\n{violation}\n{options}\nreplay: {}",
            Variation::default().replay_command(options.seed)
        );
    }
    outcome
}

#[test]
fn clusters_elect_commit_and_execute() {
    for seed in 0..20 {
        let outcome = run(&Options::calm(seed));
        assert!(
            outcome.operations > 10,
            "seed {seed}: {} operations",
            outcome.operations
        );
    }
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_all_comes_back() {
    for seed in 0..24 {
        run(&Options::draw(seed));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut before = None;
    for seed in 100..104 {
        let (one, two) = (run(&Options::draw(seed)), run(&Options::draw(seed)));
        assert_eq!(
            (one.trace, one.happenings),
            (two.trace, two.happenings),
            "seed {seed}"
        );
        assert_eq!(one.story, two.story, "seed {seed}");
        assert_ne!(before.replace(one.trace), Some(one.trace), "seeds differ");
    }
}
