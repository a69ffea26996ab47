//! What clients may submit.

use bytes::Bytes;
use raftlog_proto::{CLIENT_ID_BYTES_MAX, OPERATION_BYTES_MAX, error, reason};
use raftlog_raft::entry::{Operation, SessionStamp};
use tonic::{Code, Status};

/// An operation as the core takes it, if it is one.
pub(crate) fn checked(
    data: Bytes,
    client_id: &str,
    sequence: u64,
    acknowledged_through: u64,
) -> Result<Operation, Status> {
    if data.is_empty() {
        return Err(invalid("the operation is empty; it has 1 byte to 1 MiB".into()));
    }
    if data.len() > OPERATION_BYTES_MAX {
        return Err(invalid(format!(
            "the operation has {} bytes, more than {OPERATION_BYTES_MAX}",
            data.len()
        )));
    }
    if client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(invalid(format!(
            "the client_id has {} bytes, more than {CLIENT_ID_BYTES_MAX}",
            client_id.len()
        )));
    }
    let session = (!client_id.is_empty()).then(|| SessionStamp {
        client_id: client_id.into(),
        sequence,
        acknowledged_through,
    });
    Ok(Operation { data, session })
}

/// A refusal for what a client sent.
pub(crate) fn invalid(message: String) -> Status {
    error::status(Code::InvalidArgument, reason::INVALID_OPERATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_to_one_mebibyte() {
        for (bytes, client_id, ok) in [
            (0, 0, false),
            (1, 0, true),
            (OPERATION_BYTES_MAX, 256, true),
            (OPERATION_BYTES_MAX + 1, 0, false),
            (1, 257, false),
        ] {
            let result = checked(vec![7; bytes].into(), &"x".repeat(client_id), 1, 0);
            assert_eq!(result.is_ok(), ok, "{bytes} bytes, client_id of {client_id}");
            if let Err(status) = result {
                assert_eq!(status.code(), Code::InvalidArgument);
                assert_eq!(
                    error::reason_of(&status).as_deref(),
                    Some(reason::INVALID_OPERATION)
                );
            }
        }
    }

    #[test]
    fn an_empty_client_id_asks_for_no_session() {
        assert_eq!(checked("x".into(), "", 7, 1).unwrap().session, None);
        let stamp = checked("x".into(), "me", 7, 1).unwrap().session.unwrap();
        assert_eq!(
            (
                stamp.client_id.as_ref(),
                stamp.sequence,
                stamp.acknowledged_through
            ),
            ("me", 7, 1)
        );
    }
}
