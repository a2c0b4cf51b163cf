//! Heads and bodies of requests.

use crate::built_in::{GzipBuiltIn, JsonBuiltIn};
use crate::export::destination::{Destination, Protocol};
use crate::export::file::descriptor;
use crate::export::net::proxy::Proxy;
use crate::export::{Compression, Failure, MAX_REQUEST, Request, Signal, gzip};

pub(in crate::export) const USER_AGENT: &str =
    concat!("ebpf-otlp/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// Most memory that a buffer keeps between requests, in bytes.
const MAX_KEPT: usize = 8 << 20;

/// What stands before bodies.
pub(super) struct Heads {
    /// What the request line names, for each signal.
    targets: Vec<(Signal, String)>,
    /// All of the head between the request line and the length.
    fields: String,
}

impl Heads {
    /// Heads of requests to a destination, or to the proxy that passes them on to it.
    pub(super) fn new(destination: &Destination, proxy: Option<&Proxy>) -> Self {
        let Destination { endpoint, headers, .. } = destination;
        let authority = endpoint.authority();
        let media = if destination.protocol == Protocol::HttpJson { "json" } else { "x-protobuf" };
        let mut fields = format!("Host: {authority}\r\nContent-Type: application/{media}\r\n");
        if let Compression::Gzip(_) = destination.compression {
            fields += "Content-Encoding: gzip\r\n";
        }
        if !cfg!(feature = "gzip") {
            fields += "Accept-Encoding: identity\r\n";
        }
        if !headers.iter().any(|header| header.name().eq_ignore_ascii_case("user-agent")) {
            fields += &format!("User-Agent: {USER_AGENT}\r\n");
        }
        if let Some(authorization) = proxy.and_then(Proxy::authorization) {
            fields += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        for header in headers {
            fields += &format!("{}: {}\r\n", header.name(), header.value());
        }
        let origin = proxy.map_or(String::new(), |_| format!("http://{authority}"));
        let targets = &destination.targets;
        let targets = targets.iter().map(|(signal, target)| (*signal, format!("{origin}{target}"))).collect();
        Self { targets, fields }
    }

    /// The head of a request with a body of `length` bytes; `None` where the signal is not sent there.
    pub(super) fn head(&self, signal: Signal, length: usize) -> Option<String> {
        let (_, target) = self.targets.iter().find(|(own, _)| *own == signal)?;
        Some(format!("POST {target} HTTP/1.1\r\n{}Content-Length: {length}\r\n\r\n", self.fields))
    }
}

/// Makes bodies, in buffers that are used again.
pub(super) struct Bodies {
    json: Option<(JsonBuiltIn, String)>,
    gzip: Option<(GzipBuiltIn, Vec<u8>)>,
}

impl Bodies {
    pub(super) fn new(destination: &Destination) -> Self {
        Self {
            json: JsonBuiltIn::get()
                .filter(|_| destination.protocol == Protocol::HttpJson)
                .map(|built_in| (built_in, String::new())),
            gzip: match destination.compression {
                Compression::Gzip(built_in) => Some((built_in, Vec::new())),
                Compression::None => None,
            },
        }
    }

    /// The body of a request: the message, as JSON and compressed where asked.
    pub(super) fn encode<'a>(&'a mut self, request: &'a Request) -> Result<&'a [u8], Box<Failure>> {
        // Also before it grows to JSON, whose buffer would be several times as large.
        check_size(request.body.len())?;
        let plain = match &mut self.json {
            Some((_, json)) => {
                json.clear();
                json.shrink_to(MAX_KEPT);
                otlp_encode::json::transcode(descriptor(request.signal), &request.body, json)
                    .map_err(Failure::Json)?;
                check_size(json.len())?;
                json.as_bytes()
            }
            None => &request.body,
        };
        match &mut self.gzip {
            Some((built_in, buffer)) => {
                buffer.clear();
                buffer.shrink_to(MAX_KEPT);
                gzip::compress_into(plain, buffer, *built_in);
                Ok(buffer)
            }
            None => Ok(plain),
        }
    }
}

/// Refuses what is larger than OTLP allows, before compression.
pub(in crate::export) fn check_size(bytes: usize) -> Result<(), Box<Failure>> {
    if bytes > MAX_REQUEST { Err(Box::new(Failure::RequestTooLarge { bytes })) } else { Ok(()) }
}
