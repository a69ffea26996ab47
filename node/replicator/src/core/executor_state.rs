//! What a snapshot holds beside its place: the state of the executor, as bytes that only replicators understand.

use bytes::{Buf, Bytes};

/// The longest state that is taken or given, in bytes. It is held in memory whole, and goes in one message.
pub const STATE_BYTES_MAX: usize = 64 << 10;

const VERSION: u8 = 1;
/// The executor `log`: it has no state beyond the place, as what it has printed stays printed.
const LOG: u8 = 1;

/// The state of the `log` executor: `version u8, executor u8`.
pub(super) fn encode() -> Bytes {
    Bytes::from_static(&[VERSION, LOG])
}

/// Whether these bytes are a state of the `log` executor; the error is a phrase.
pub(super) fn check(mut state: &[u8]) -> Result<(), String> {
    let mut next = || state.try_get_u8().map_err(|_| "it is cut short".to_owned());
    match next()? {
        VERSION => {}
        other => {
            return Err(format!(
                "it has version {other}, and this program reads {VERSION}: use the program that the other replicators use"
            ));
        }
    }
    match next()? {
        LOG => {}
        other => {
            return Err(format!(
                "it is of executor {other}, and this one is log ({LOG}): give all replicators the same --executor"
            ));
        }
    }
    match state.len() {
        0 => Ok(()),
        more => Err(format!("it is {more} bytes too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_state_of_this_executor_and_version_is_taken() {
        let state = encode();
        assert_eq!(check(&state), Ok(()));
        for length in 0..state.len() {
            assert!(check(&state[..length]).is_err(), "{length} bytes");
        }
        for other in [
            &[VERSION, LOG, 0][..],
            &[VERSION + 1, LOG],
            &[0, LOG],
            &[VERSION, 2],
        ] {
            assert!(check(other).is_err(), "{other:?}");
        }
    }
}
