//! Bytes that are not what the port expects.

use bytes::Bytes;
use processes::cluster::{Cluster, Options};
use processes::{api, seed};
use rand::Rng;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

/// Sends bytes as they are, and hands answers over likewise.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(buffer, item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length)))
    }
}

/// Writes `bytes` and reads until the other side hangs up, or has nothing to say for a moment.
async fn throw(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("somebody listens");
    // The other side may hang up in the middle.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port() {
    let (_, mut random) = seed::announce("garbage::garbage_on_every_port");
    let mut cluster = Cluster::start(Options::with_default_timings()).await;
    let before = cluster.leader_among(&cluster.numbers()).await;
    let node = before.node;
    let mut noise = vec![0; 64 << 10];
    random.fill_bytes(&mut noise);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let long_line = [b"GET /".as_slice(), &vec![b'a'; 256 << 10], b" HTTP/1.1\r\n\r\n"].concat();
    let salvos: [&[u8]; 7] = [
        &noise,
        b"",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[preface.as_slice(), &noise].concat(),
        &[preface.as_slice(), b"\xff\xff\xff\x00\x00\x00\x00\x00\x00"].concat(),
        &long_line,
    ];
    let ports = [
        cluster.port(node),
        cluster.replicator_port(node),
        cluster.http_port(node),
        cluster.replicator_http_port(node),
    ];
    // Connections that never say anything do not keep others out.
    let mut silent = Vec::new();
    for port in ports {
        for _ in 0..100 {
            silent.push(
                TcpStream::connect(("127.0.0.1", port))
                    .await
                    .expect("somebody listens"),
            );
        }
        for salvo in salvos {
            throw(port, salvo).await;
        }
    }
    cluster.wait_until_ready().await;
    let after = cluster.leader_among(&cluster.numbers()).await;
    assert_eq!((after.node, after.term), (before.node, before.term));
    cluster.submit(node, "after all that").await.expect("all is well");
    cluster.check_history(&[]).await;
}

/// Noise in fields that no message has, and then a tag of field 0, which no decoder takes.
fn noise(random: &mut impl Rng, length: usize) -> Vec<u8> {
    const FIELD_200_OF_BYTES: [u8; 2] = [0xc2, 0x0c];
    const FIELD_0: u8 = 0x07;
    let mut noise = vec![0; length];
    random.fill_bytes(&mut noise);
    let field = |chunk: &[u8]| {
        let length = u8::try_from(chunk.len()).expect("a short chunk");
        [&FIELD_200_OF_BYTES[..], &[length], chunk].concat()
    };
    let mut message: Vec<u8> = noise.chunks(100).flat_map(field).collect();
    message.push(FIELD_0);
    message
}

/// Proper gRPC frames whose messages are noise, to every method there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_every_method() {
    let (_, mut random) = seed::announce("garbage::garbage_in_every_method");
    let mut cluster = Cluster::start(Options::with_default_timings()).await;
    let before = cluster.leader_among(&cluster.numbers()).await;
    let node = before.node;
    let (to_node, to_replicator) = (cluster.port(node), cluster.replicator_port(node));
    let methods = [
        (to_node, "Operations/SubmitClientRequest"),
        (to_node, "Operations/SubmitStream"),
        (to_node, "Operations/OpenSession"),
        (to_node, "Operations/GetStatus"),
        (to_node, "Cluster/Bootstrap"),
        (to_node, "Cluster/TransferLeadership"),
        (to_node, "Cluster/WatchStatus"),
        (to_node, "Raft/RequestVote"),
        (to_node, "Raft/AppendEntries"),
        (to_node, "Raft/TimeoutNow"),
        (to_node, "Raft/NoSuchMethod"),
        (to_replicator, "Replicator/ReplicateLog"),
        (to_replicator, "OperationLog/Watch"),
        (to_replicator, "OperationLog/Read"),
    ];
    for (port, method) in methods {
        let path = PathAndQuery::try_from(format!("/raftlog.v1.{method}")).expect("a path");
        for length in [1, 7, 100, 10_000] {
            let noise = noise(&mut random, length);
            let mut client = tonic::client::Grpc::new(api::channel(port));
            client.ready().await.expect("somebody listens");
            let request = Request::new(tokio_stream::once(Bytes::from(noise)));
            let answer = async {
                let mut answers = client.streaming(request, path.clone(), Raw).await?.into_inner();
                while answers.message().await?.is_some() {}
                Ok::<(), Status>(())
            };
            let answer = timeout(api::CALL_TIMEOUT, answer).await;
            assert!(
                matches!(answer, Ok(Err(_))),
                "{method} answers {answer:?} to noise of {length} bytes"
            );
        }
    }
    cluster.wait_until_ready().await;
    let after = cluster.leader_among(&cluster.numbers()).await;
    assert_eq!((after.node, after.term), (before.node, before.term));
    assert!(cluster.node(node).is_running() && cluster.replicator(node).is_running());
    cluster.check_history(&[]).await;
}
