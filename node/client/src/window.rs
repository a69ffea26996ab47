//! The operations of a stream that are not answered yet: pure.

use std::collections::VecDeque;

use bytes::Bytes;
use raftlog_proto::v1::IndexRun;

/// The most bytes of operations in one message; a larger operation goes alone.
const MESSAGE_BYTES: usize = 256 << 10;

/// The most operations in one message.
const MESSAGE_OPERATIONS: usize = 256;

/// The operations of a stream from the first unanswered one on, in order, kept so that they can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    first_sequence: u64,
    operations: VecDeque<Bytes>,
    bytes: usize,
    /// How many of them were sent on the present connection.
    sent: usize,
    operations_max: usize,
    bytes_max: usize,
}

/// Consecutive operations of a stream that got consecutive indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Position in the stream, as a sequence.
    pub first_sequence: u64,
    /// Operation index of the first of them.
    pub first_index: u64,
    /// How many, at least 1.
    pub count: u64,
}

impl Window {
    pub(crate) fn new(first_sequence: u64, operations_max: usize, bytes_max: usize) -> Self {
        Self {
            first_sequence,
            operations: VecDeque::new(),
            bytes: 0,
            sent: 0,
            operations_max,
            bytes_max,
        }
    }

    /// Whether another operation may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.operations.len() < self.operations_max
            && (self.operations.is_empty() || self.bytes < self.bytes_max)
    }

    /// Takes in the next operation; only while there is room.
    pub(crate) fn push(&mut self, operation: Bytes) {
        assert!(self.has_room(), "a window takes in no more than it has room for");
        self.bytes += operation.len();
        self.operations.push_back(operation);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.operations.len()
    }

    /// Sequence of the first operation without an answer.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The operations of the next message, marked as sent: at least one while [`Window::has_unsent`].
    pub(crate) fn next_message(&mut self) -> Vec<Bytes> {
        let mut message = Vec::new();
        let mut bytes = 0;
        for operation in self.operations.range(self.sent..).take(MESSAGE_OPERATIONS) {
            if !message.is_empty() && bytes + operation.len() > MESSAGE_BYTES {
                break;
            }
            bytes += operation.len();
            message.push(operation.clone());
        }
        self.sent += message.len();
        message
    }

    /// The connection is gone: whatever has no answer is to be sent again, in order.
    pub(crate) fn broken(&mut self) {
        self.sent = 0;
    }

    /// Takes in an answer to the first operations that have none. The error says what is wrong with it.
    pub(crate) fn answered(&mut self, run: IndexRun) -> Result<Answered, String> {
        let count = usize::try_from(run.count).unwrap_or(usize::MAX);
        if run.count == 0 || run.first_index == 0 || count > self.sent {
            return Err(format!(
                "the node answered {} operations from index {} on where {} were unanswered",
                run.count, run.first_index, self.sent
            ));
        }
        let answered = Answered {
            first_sequence: self.first_sequence,
            first_index: run.first_index,
            count: run.count,
        };
        for operation in self.operations.drain(..count) {
            self.bytes -= operation.len();
        }
        self.sent -= count;
        self.first_sequence += run.count;
        Ok(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(number: usize) -> Bytes {
        Bytes::from(format!("operation-{number}"))
    }

    fn window(operations: usize) -> Window {
        let mut window = Window::new(10, 8, 1 << 20);
        for number in 0..operations {
            window.push(operation(number));
        }
        window
    }

    fn run(first_index: u64, count: u64) -> IndexRun {
        IndexRun { first_index, count }
    }

    #[test]
    fn sends_in_order_and_once() {
        let mut window = window(3);
        assert_eq!(window.next_message(), [operation(0), operation(1), operation(2)]);
        assert!(!window.has_unsent());
        assert!(window.next_message().is_empty());
        window.push(operation(3));
        assert_eq!(window.next_message(), [operation(3)]);
    }

    #[test]
    fn a_broken_connection_sends_the_unanswered_rest_again() {
        let mut window = window(4);
        window.next_message();
        let answered = window.answered(run(100, 2)).unwrap();
        assert_eq!(
            answered,
            Answered {
                first_sequence: 10,
                first_index: 100,
                count: 2
            }
        );
        window.broken();
        assert_eq!(window.first_sequence(), 12);
        assert_eq!(window.next_message(), [operation(2), operation(3)]);
        window.answered(run(102, 2)).unwrap();
        assert!(window.is_empty());
        assert_eq!(window.first_sequence(), 14);
    }

    #[test]
    fn answers_that_make_no_sense() {
        for (first_index, count) in [(1, 0), (0, 1), (1, 4), (1, u64::MAX)] {
            let mut window = window(4);
            window.next_message();
            window.answered(run(1, 1)).unwrap();
            let error = window.answered(run(first_index, count)).unwrap_err();
            assert!(error.contains("3 were unanswered"), "{error}");
        }
        let mut unsent = window(2);
        assert!(unsent.answered(run(1, 1)).is_err(), "nothing was sent yet");
    }

    #[test]
    fn room_is_bounded_by_count_and_by_bytes() {
        let mut window = window(7);
        assert!(window.has_room());
        window.push(operation(7));
        assert!(!window.has_room());
        window.next_message();
        window.answered(run(1, 1)).unwrap();
        assert!(window.has_room());

        let mut window = Window::new(1, 100, 10);
        window.push(Bytes::from_static(&[0; 50]));
        assert!(
            !window.has_room(),
            "one may always go, however large, but not a second one"
        );
    }

    #[test]
    fn messages_are_bounded_by_bytes_and_by_count() {
        let large = Bytes::from(vec![0; MESSAGE_BYTES - 1]);
        let mut window = Window::new(1, 2000, 1 << 30);
        for piece in [
            large.clone(),
            Bytes::from_static(b"x"),
            Bytes::from_static(b"y"),
            large.clone(),
            large,
        ] {
            window.push(piece);
        }
        let lengths: Vec<usize> =
            std::iter::from_fn(|| window.has_unsent().then(|| window.next_message().len())).collect();
        assert_eq!(lengths, [2, 2, 1]);

        let mut window = Window::new(1, 2000, 1 << 30);
        for number in 0..600 {
            window.push(operation(number));
        }
        let lengths: Vec<usize> =
            std::iter::from_fn(|| window.has_unsent().then(|| window.next_message().len())).collect();
        assert_eq!(lengths, [256, 256, 88]);
    }
}
