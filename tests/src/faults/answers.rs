//! Answers of receivers, byte for byte.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

/// The header line of OTLP answers.
pub const PROTOBUF: &str = "Content-Type: application/x-protobuf";
/// The largest answer that OTLP allows.
pub const LIMIT: usize = 4 << 20;

/// An HTTP answer that says how long its body is.
pub fn http(status: u16, headers: &[&str], body: &[u8]) -> Vec<u8> {
    with_length(status, headers, &format!("Content-Length: {}", body.len()), body)
}

/// An HTTP answer whose length, `framing`, may be wrong.
pub fn with_length(status: u16, headers: &[&str], framing: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As Told\r\n");
    for line in headers.iter().chain([&framing]) {
        head += &format!("{line}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// An HTTP answer in chunks of at most `size` bytes, without the last chunk.
pub fn chunked(status: u16, headers: &[&str], body: &[u8], size: usize) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(size) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    with_length(status, headers, "Transfer-Encoding: chunked", &chunks)
}

/// The end of [`chunked`].
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An acceptance that decompresses to one byte more than OTLP allows.
pub fn bomb() -> Vec<u8> {
    http(200, &[PROTOBUF, "Content-Encoding: gzip"], &gzip(&vec![0; LIMIT + 1]))
}

/// `bytes`, compressed.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector takes all")
}

/// `Export*ServiceResponse` with `rejected` items and a message; the same for all signals.
pub fn partial_success(rejected: i64, message: &str) -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    let partial = ExportLogsPartialSuccess { rejected_log_records: rejected, error_message: message.into() };
    ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `google.rpc.Status`, with a `RetryInfo` where there is a delay to ask for.
pub fn rpc_status(code: i32, message: &str, delay: Option<Duration>) -> Vec<u8> {
    let retry_info = |delay: Duration| {
        let delay = Delay { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
        let value = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
        Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value }
    };
    Status { code, message: message.into(), details: delay.into_iter().map(retry_info).collect() }
        .encode_to_vec()
}
