//! What may be seen of operations that are executed at least once, in order.

/// What a process that called out had done at its start, as far as it knew, and what it called for after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) executed_before: u64,
    pub(crate) indexes: Vec<u64>,
}

/// Whether each run goes on behind what was known, without gaps, with repeats of what failed right after it, and no run knew
/// more than was done; the error is what is wrong.
pub(crate) fn check(runs: &[Run]) -> Result<(), String> {
    let mut done = 0;
    for (at, run) in runs.iter().enumerate() {
        if run.executed_before > done {
            return Err(format!(
                "run {at} goes on behind {}, where {done} was done at most",
                run.executed_before
            ));
        }
        let mut last = run.executed_before;
        for &index in &run.indexes {
            let is_repeat = index == last && last > run.executed_before;
            if index != last + 1 && !is_repeat {
                return Err(format!("run {at} has {index} behind {last}"));
            }
            last = index;
        }
        done = done.max(last);
    }
    Ok(())
}

#[test]
fn what_is_lost_doubled_or_out_of_order_is_found() {
    let run = |executed_before, indexes: &[u64]| Run {
        executed_before,
        indexes: indexes.to_vec(),
    };
    for (runs, is_right) in [
        (&[run(0, &[1, 2, 3])][..], true),
        (&[run(0, &[1, 2, 2, 2, 3])], true),
        (&[run(0, &[1, 2, 3]), run(1, &[2, 3, 4])], true),
        (&[run(0, &[1, 2, 3]), run(3, &[4])], true),
        (&[run(0, &[]), run(0, &[1])], true),
        (&[run(0, &[2])], false),
        (&[run(0, &[1, 3])], false),
        (&[run(0, &[1, 2, 1])], false),
        (&[run(0, &[1, 2, 3]), run(1, &[3])], false),
        (&[run(0, &[1, 2, 3]), run(2, &[2, 3])], false),
        (&[run(0, &[1]), run(2, &[3])], false),
    ] {
        assert_eq!(check(runs).is_ok(), is_right, "{runs:?}");
    }
}
