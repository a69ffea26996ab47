//! What of ZooKeeper's protocol is needed to write: frames of a length and jute records (`zookeeper.jute`).

/// Protocol version 0, nothing seen yet, and a session to be made.
const SESSION_NEW: [u8; 8] = [0; 8];
const PASSWORD_NONE: [u8; 16] = [0; 16];

/// Kinds of requests.
const CREATE: i32 = 1;
const SET_DATA: i32 = 5;
const PING: i32 = 11;

/// Of a ping, instead of a number.
pub(super) const XID_PING: i32 = -2;
/// What is created is there already.
pub(super) const NODE_EXISTS: i32 = -110;

/// A frame in the making.
struct Frame(Vec<u8>);

impl Frame {
    fn new() -> Self {
        // The length comes last.
        Self(vec![0; 4])
    }

    fn request(xid: i32, kind: i32) -> Self {
        Self::new().int(xid).int(kind)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn int(self, number: i32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Bytes or text, behind their length.
    fn buffer(self, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).expect("operations are at most 1 MiB");
        self.int(length).bytes(bytes)
    }

    fn end(mut self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() - 4).expect("operations are at most 1 MiB");
        for (place, byte) in self.0.iter_mut().zip(length.to_be_bytes()) {
            *place = byte;
        }
        self.0
    }
}

/// `ConnectRequest`: the first frame.
pub(super) fn connect(timeout_milliseconds: i32) -> Vec<u8> {
    Frame::new()
        .int(0)
        .bytes(&[0; 8])
        .int(timeout_milliseconds)
        .bytes(&SESSION_NEW)
        .buffer(&PASSWORD_NONE)
        .bytes(&[0])
        .end()
}

/// A node of the tree that everybody may do everything with.
pub(super) fn create(xid: i32, path: &str) -> Vec<u8> {
    let (one_rule, all_rights, persistent) = (1, 31, 0);
    Frame::request(xid, CREATE)
        .buffer(path.as_bytes())
        .buffer(b"")
        .int(one_rule)
        .int(all_rights)
        .buffer(b"world")
        .buffer(b"anyone")
        .int(persistent)
        .end()
}

/// Whatever version it has.
pub(super) fn set_data(xid: i32, path: &str, data: &[u8]) -> Vec<u8> {
    let any_version = -1;
    Frame::request(xid, SET_DATA)
        .buffer(path.as_bytes())
        .buffer(data)
        .int(any_version)
        .end()
}

pub(super) fn ping() -> Vec<u8> {
    Frame::request(XID_PING, PING).end()
}

/// What an answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyHeader {
    pub(super) xid: i32,
    /// 0: done.
    pub(super) error: i32,
}

/// Of a frame without its length.
pub(super) fn reply_header(frame: &[u8]) -> Option<ReplyHeader> {
    let (xid, rest) = frame.split_first_chunk()?;
    let (_zxid, rest) = rest.split_first_chunk::<8>()?;
    let (error, _) = rest.split_first_chunk()?;
    Some(ReplyHeader {
        xid: i32::from_be_bytes(*xid),
        error: i32::from_be_bytes(*error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_they_say() {
        assert_eq!(ping(), [0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]);
        assert_eq!(
            set_data(7, "/a", b"xyz"),
            [
                &[0, 0, 0, 25, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 2][..],
                b"/a",
                &[0, 0, 0, 3],
                b"xyz",
                &[0xff; 4]
            ]
            .concat()
        );
        for frame in [connect(30_000), create(1, "/benchmark-1")] {
            let (length, rest) = frame.split_first_chunk().unwrap();
            assert_eq!(u32::from_be_bytes(*length), u32::try_from(rest.len()).unwrap());
        }
        assert_eq!(connect(30_000).len(), 4 + 4 + 8 + 4 + 8 + 4 + 16 + 1);
    }

    #[test]
    fn answers_begin_with_their_number() {
        let frame = [
            &[0, 0, 0, 9][..],
            &[0, 0, 0, 0, 0, 0, 1, 0],
            &(-110_i32).to_be_bytes(),
            b"more",
        ]
        .concat();
        assert_eq!(
            reply_header(&frame),
            Some(ReplyHeader {
                xid: 9,
                error: NODE_EXISTS
            })
        );
        assert_eq!(reply_header(&[0; 15]), None);
    }
}
