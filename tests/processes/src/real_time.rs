//! Real-time order: what ended before something else began comes before it in the log too.
//!
//! The log is the one order in which everything happened. An append has its place in it; a read, or whoever was told how far
//! the log is committed, stands right behind the last operation that was seen. A history is linearizable if these places
//! never contradict the clock.

/// Something that happened between two moments, and its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span<T> {
    /// What it was.
    pub(crate) what: T,
    /// When it began, in microseconds; absent where nothing that ended earlier binds it.
    pub(crate) began: Option<u64>,
    /// When it had ended; absent where nobody was told.
    pub(crate) ended: Option<u64>,
    /// From [`append_place`] or [`seen_place`].
    pub(crate) place: u64,
}

/// The place of the append with that operation index.
pub(crate) fn append_place(index: u64) -> u64 {
    2 * index
}

/// The place of a read that saw everything up to `last`.
pub(crate) fn seen_place(last: u64) -> u64 {
    2 * last + 1
}

/// Sweeps through the beginnings by time, beside it the ends that came before each.
///
/// # Errors
/// Two that stand in the log the other way round, the earlier by the clock first.
pub(crate) fn check<T: Copy>(spans: &[Span<T>]) -> Result<(), (T, T)> {
    let mut beginnings: Vec<(u64, &Span<T>)> = spans
        .iter()
        .filter_map(|span| Some((span.began?, span)))
        .collect();
    let mut ends: Vec<(u64, &Span<T>)> = spans
        .iter()
        .filter_map(|span| Some((span.ended?, span)))
        .collect();
    beginnings.sort_by_key(|(at, _)| *at);
    ends.sort_by_key(|(at, _)| *at);
    let mut ends = ends.into_iter().peekable();
    let mut highest: Option<&Span<T>> = None;
    for (began, later) in beginnings {
        while let Some((_, span)) = ends.next_if(|(ended, _)| *ended < began) {
            if highest.is_none_or(|highest| span.place > highest.place) {
                highest = Some(span);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.place > later.place) {
            return Err((earlier.what, later.what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(what: &'static str, times: (u64, u64), place: u64) -> Span<&'static str> {
        Span {
            what,
            began: Some(times.0),
            ended: Some(times.1),
            place,
        }
    }

    #[test]
    fn what_overlaps_may_stand_in_any_order() {
        for (one, other) in [((0, 10), (10, 20)), ((0, 30), (10, 20)), ((10, 20), (0, 30))] {
            for places in [(2, 4), (4, 2), (3, 3)] {
                let spans = [span("one", one, places.0), span("other", other, places.1)];
                assert_eq!(check(&spans), Ok(()), "{spans:?}");
            }
        }
    }

    #[test]
    fn a_place_that_contradicts_the_clock_is_found() {
        let (first, then) = ((0, 10), (11, 20));
        let (append, seen) = (append_place, seen_place);
        for (earlier, later, good) in [
            (append(1), append(2), true),
            (append(2), append(1), false),
            // A read sees what was acknowledged before it,
            (append(2), seen(2), true),
            (append(2), seen(3), true),
            (append(2), seen(1), false),
            // not what is submitted after it,
            (seen(2), append(3), true),
            (seen(2), append(2), false),
            // and no less than a read before it.
            (seen(2), seen(2), true),
            (seen(2), seen(1), false),
        ] {
            let spans = [span("later", then, later), span("earlier", first, earlier)];
            let expected = if good { Ok(()) } else { Err(("earlier", "later")) };
            assert_eq!(check(&spans), expected, "{earlier} and then {later}");
        }
    }

    #[test]
    fn what_has_no_beginning_or_no_end_is_bound_on_one_side_only() {
        let stale = Span {
            began: None,
            ..span("stale", (0, 20), seen_place(1))
        };
        let before = span("before", (0, 10), append_place(2));
        assert_eq!(check(&[before, stale]), Ok(()));
        let after = span("after", (21, 30), append_place(1));
        assert_eq!(check(&[stale, after]), Err(("stale", "after")));

        let unanswered = Span {
            ended: None,
            ..span("unanswered", (11, 0), append_place(1))
        };
        assert_eq!(check(&[before, unanswered]), Err(("before", "unanswered")));
        let later = span("later", (30, 40), seen_place(0));
        assert_eq!(check(&[unanswered, later]), Ok(()));
    }

    #[test]
    fn the_earlier_one_is_found_however_far_back_it_is() {
        let mut spans: Vec<_> = (1..100)
            .map(|index| span("good", (index * 10, index * 10 + 5), append_place(index)))
            .collect();
        assert_eq!(check(&spans), Ok(()));
        spans.push(span("far", (0, 1), append_place(1000)));
        spans.push(span("last", (2000, 2001), append_place(100)));
        assert_eq!(check(&spans), Err(("far", "good")));
    }
}
