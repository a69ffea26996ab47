//! Snapshots between members. A header's cluster and members have been checked by [`crate::header`].

use raftlog_proto::v1;
use raftlog_proto::v1::install_snapshot_request::Part;
use raftlog_proto::v1::install_snapshot_response::{Answer, Installed, Refused};
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_storage::snapshots::{DATA_BYTES_MAX, METADATA_BYTES_MAX, Manifest, Whole};

use super::Malformed;
use super::raft::{header, term};
use crate::node::{InstallSnapshot, InstallSnapshotResponse, SnapshotAnswer, SnapshotId, SnapshotPart};

/// Data in one message.
const PART_BYTES_MAX: usize = 1 << 20;
/// Bytes of a reason that is told.
const WHY_BYTES_MAX: usize = 1 << 10;

/// The request for an [`InstallSnapshot`].
pub(crate) fn install_snapshot_to_wire(
    cluster: ClusterId,
    message: InstallSnapshot,
) -> v1::InstallSnapshotRequest {
    let part = match message.part {
        SnapshotPart::Offer(manifest) => Part::Offer(manifest_to_wire(manifest)),
        SnapshotPart::Data { id, offset, data } => Part::Data(v1::SnapshotPart {
            last_log_index: id.index,
            crc: id.crc,
            offset,
            data,
        }),
    };
    v1::InstallSnapshotRequest {
        header: Some(header(cluster, message.from, message.to)),
        term: message.term,
        part: Some(part),
    }
}

/// What a request says.
pub(crate) fn install_snapshot_from_wire(
    from: MemberId,
    to: MemberId,
    request: v1::InstallSnapshotRequest,
) -> Result<InstallSnapshot, Malformed> {
    let term = term(request.term)?;
    let part = match request.part.ok_or(Malformed("part"))? {
        Part::Offer(offer) => SnapshotPart::Offer(manifest_from_wire(offer, term)?),
        Part::Data(data) => {
            if data.data.is_empty() || data.data.len() > PART_BYTES_MAX {
                return Err(Malformed("data: length"));
            }
            SnapshotPart::Data {
                id: id(data.last_log_index, data.crc)?,
                offset: data.offset,
                data: data.data,
            }
        }
    };
    Ok(InstallSnapshot { from, to, term, part })
}

/// What a snapshot is.
pub(crate) fn manifest_to_wire(manifest: Manifest) -> v1::SnapshotManifest {
    v1::SnapshotManifest {
        last_log_index: manifest.index,
        last_log_term: manifest.term,
        metadata: manifest.metadata,
        bytes: manifest.whole.bytes,
        crc: manifest.whole.crc,
    }
}

fn manifest_from_wire(offer: v1::SnapshotManifest, term: u64) -> Result<Manifest, Malformed> {
    if offer.last_log_index == 0 {
        return Err(Malformed("last_log_index"));
    }
    if offer.last_log_term == 0 || offer.last_log_term > term {
        return Err(Malformed("last_log_term"));
    }
    if offer.metadata.len() > METADATA_BYTES_MAX {
        return Err(Malformed("metadata: length"));
    }
    if offer.bytes == 0 || offer.bytes > DATA_BYTES_MAX {
        return Err(Malformed("bytes"));
    }
    Ok(Manifest {
        index: offer.last_log_index,
        term: offer.last_log_term,
        metadata: offer.metadata,
        whole: Whole {
            bytes: offer.bytes,
            crc: offer.crc,
        },
    })
}

/// The response for an [`InstallSnapshotResponse`].
pub(crate) fn snapshot_response_to_wire(
    cluster: ClusterId,
    response: InstallSnapshotResponse,
) -> v1::InstallSnapshotResponse {
    let answer = match response.answer {
        SnapshotAnswer::GoOnAt(offset) => Answer::GoOnAt(offset),
        SnapshotAnswer::Received(bytes) => Answer::Received(bytes),
        SnapshotAnswer::Installed => Answer::Installed(Installed {}),
        SnapshotAnswer::Refused(why) => Answer::Refused(Refused { why }),
    };
    v1::InstallSnapshotResponse {
        header: Some(header(cluster, response.from, response.to)),
        term: response.term,
        last_log_index: response.id.index,
        crc: response.id.crc,
        answer: Some(answer),
    }
}

/// What a response says.
pub(crate) fn snapshot_response_from_wire(
    from: MemberId,
    to: MemberId,
    response: v1::InstallSnapshotResponse,
) -> Result<InstallSnapshotResponse, Malformed> {
    let answer = match response.answer.ok_or(Malformed("answer"))? {
        Answer::GoOnAt(offset) => SnapshotAnswer::GoOnAt(offset),
        Answer::Received(bytes) => SnapshotAnswer::Received(bytes),
        Answer::Installed(Installed {}) => SnapshotAnswer::Installed,
        Answer::Refused(Refused { why }) if why.len() <= WHY_BYTES_MAX => SnapshotAnswer::Refused(why),
        Answer::Refused(_) => return Err(Malformed("why: length")),
    };
    Ok(InstallSnapshotResponse {
        from,
        to,
        term: response.term,
        id: id(response.last_log_index, response.crc)?,
        answer,
    })
}

/// Which one a caller wants to download.
pub(crate) fn download_from_wire(
    request: &v1::DownloadSnapshotRequest,
) -> Result<(SnapshotId, u64), Malformed> {
    Ok((id(request.last_log_index, request.crc)?, request.offset))
}

fn id(index: u64, crc: u32) -> Result<SnapshotId, Malformed> {
    if index == 0 {
        return Err(Malformed("last_log_index"));
    }
    Ok(SnapshotId { index, crc })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    const TERM: u64 = 9;

    fn ids() -> (ClusterId, MemberId, MemberId) {
        (
            ClusterId::new(3).unwrap(),
            MemberId::new(1).unwrap(),
            MemberId::new(2).unwrap(),
        )
    }

    fn manifest() -> Manifest {
        Manifest {
            index: 7,
            term: TERM,
            metadata: Bytes::from_static(b"m"),
            whole: Whole { bytes: 5, crc: 11 },
        }
    }

    #[test]
    fn requests_survive_the_wire() {
        let (cluster, from, to) = ids();
        let id = SnapshotId::of(&manifest());
        let data = Bytes::from_static(b"data");
        let data = SnapshotPart::Data { id, offset: 3, data };
        for part in [SnapshotPart::Offer(manifest()), data] {
            let term = TERM;
            let message = InstallSnapshot { from, to, term, part };
            let bytes = install_snapshot_to_wire(cluster, message.clone()).encode_to_vec();
            let wire = v1::InstallSnapshotRequest::decode(bytes.as_slice()).unwrap();
            assert_eq!(install_snapshot_from_wire(from, to, wire), Ok(message));
        }
    }

    #[test]
    fn responses_survive_the_wire() {
        let (cluster, from, to) = ids();
        for answer in [
            SnapshotAnswer::GoOnAt(0),
            SnapshotAnswer::Received(0),
            SnapshotAnswer::Installed,
            SnapshotAnswer::Refused("why".into()),
        ] {
            let (term, id) = (TERM, SnapshotId::of(&manifest()));
            let response = InstallSnapshotResponse {
                from,
                to,
                term,
                id,
                answer,
            };
            let bytes = snapshot_response_to_wire(cluster, response.clone()).encode_to_vec();
            let wire = v1::InstallSnapshotResponse::decode(bytes.as_slice()).unwrap();
            assert_eq!(snapshot_response_from_wire(from, to, wire), Ok(response));
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        let (cluster, from, to) = ids();
        let term = TERM;
        let wire = |part| install_snapshot_to_wire(cluster, InstallSnapshot { from, to, term, part });
        let offer = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            wire(SnapshotPart::Offer(manifest))
        };
        let data = |length: usize, index: u64| {
            wire(SnapshotPart::Data {
                id: SnapshotId { index, crc: 0 },
                offset: 0,
                data: vec![1; length].into(),
            })
        };
        let none = v1::InstallSnapshotRequest {
            part: None,
            ..data(1, 1)
        };
        let no_term = v1::InstallSnapshotRequest {
            term: 0,
            ..data(1, 1)
        };
        for (request, field) in [
            (none, "part"),
            (no_term, "term"),
            (offer(|manifest| manifest.index = 0), "last_log_index"),
            (offer(|manifest| manifest.term = 0), "last_log_term"),
            (offer(|manifest| manifest.term = TERM + 1), "last_log_term"),
            (
                offer(|manifest| manifest.metadata = vec![0; METADATA_BYTES_MAX + 1].into()),
                "metadata",
            ),
            (offer(|manifest| manifest.whole.bytes = 0), "bytes"),
            (offer(|manifest| manifest.whole.bytes = u64::MAX), "bytes"),
            (data(0, 1), "data: length"),
            (data(PART_BYTES_MAX + 1, 1), "data: length"),
            (data(1, 0), "last_log_index"),
        ] {
            let error = install_snapshot_from_wire(from, to, request)
                .unwrap_err()
                .to_string();
            assert!(error.contains(field), "{error} should name {field}");
        }
        assert!(install_snapshot_from_wire(from, to, data(PART_BYTES_MAX, 1)).is_ok());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, from, to) = ids();
            if let Ok(request) = v1::InstallSnapshotRequest::decode(bytes.as_slice()) {
                let _ = install_snapshot_from_wire(from, to, request);
            }
            if let Ok(response) = v1::InstallSnapshotResponse::decode(bytes.as_slice()) {
                let _ = snapshot_response_from_wire(from, to, response);
            }
        }
    }
}
