//! Why something was not delivered.

use bpf_loader::text;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::destination::Protocol;
use super::grpc::Code;
use super::http::MAX_RESPONSE;
use super::{MAX_REQUEST, Signal};
use crate::built_in::{GrpcBuiltIn, ProxyBuiltIn, TlsBuiltIn};
use crate::key::Escaped;
use crate::units::show_fixed;
pub use tls::{TlsFileProblem, TlsProblem};

mod tls;

/// What went wrong between a configuration and a receiver's answer. No variant holds a header's value.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExportError {
    /// An endpoint that cannot be used. Wrong usage.
    Endpoint {
        /// The flag or variable that holds it.
        source_name: String,
        /// What is wrong with it.
        problem: EndpointProblem,
    },
    /// A protocol of OTLP that is not built in. Wrong usage.
    Protocol {
        /// The variable that asks for it.
        variable: String,
        /// The protocol.
        protocol: Protocol,
    },
    /// Standard output, whose JSON is not built in. Wrong usage.
    Json {
        /// The variable that asks for it.
        variable: String,
    },
    /// A client's certificate without its key, or the other way round. Wrong usage.
    ClientCertificate {
        /// The variable that is set.
        variable: String,
        /// The variable that is not.
        missing: String,
    },
    /// A header that gRPC cannot send as metadata. Wrong usage.
    Metadata {
        /// Its name. Its value is not kept: it may be a secret.
        name: String,
    },
    /// A file for TLS that cannot be used.
    TlsFile {
        /// The file; `None` for the system's.
        path: Option<PathBuf>,
        /// What is wrong with it.
        problem: TlsFileProblem,
    },
}

/// What is wrong with an endpoint's URL. The URL itself is not kept: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointProblem {
    /// It begins with neither `http://` nor `https://` nor `unix://`.
    NoScheme,
    /// It begins with `https://`, and TLS is not built in.
    Tls,
    /// What follows `unix://` is no path of a socket.
    Socket,
    /// There is nothing between `://` and the path.
    NoHost,
    /// What follows the host's `:` is no port.
    BadPort,
    /// It holds `user:password@`.
    Credentials,
    /// It holds white space, control or non-ASCII characters.
    BadCharacter,
    /// It is a proxy's, and does not begin with `http://`.
    ProxyScheme,
    /// It is a proxy's, and proxies are not built in.
    Proxy,
    /// A `file:` URL with a host, without a path, or with a path that is not percent-encoded as URLs are.
    NoFile,
    /// A `file:` URL, and JSON is not built in.
    Json,
    /// One file for several signals, or for one signal twice.
    SharedFile,
    /// Something after a `file:` URL's `?` that is no option, or out of range.
    FileOption,
}

impl fmt::Display for EndpointProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => {
                "it must begin with http://, https:// or unix://, as in http://localhost:4318"
            },
            Self::Tls => {
                "this build has no TLS (feature `tls`); use http:// to a receiver or proxy on this host"
            }
            Self::Socket => {
                "the path of a unix socket is absolute and at most 107 bytes long, as in unix:///run/otlp.sock"
            }
            Self::NoHost => "it names no host",
            Self::BadPort => "its port is not a number from 1 to 65535",
            Self::Credentials => "it holds a user name; put credentials into OTEL_EXPORTER_OTLP_HEADERS",
            Self::ProxyScheme => "only proxies at http:// can be used",
            Self::Proxy => {
                "this build has no proxies (feature `proxy`); unset the variable where the receiver is reached without one"
            }
            Self::BadCharacter => "it holds a character that a URL must percent-encode",
            Self::NoFile => {
                "it names no file; write file:///folder, or file:///folder/name.jsonl for one signal"
            }
            Self::Json => "this build writes no JSON lines (feature `json`)",
            Self::SharedFile => "a file holds one signal of one sink; name a folder, or another file",
            Self::FileOption => {
                "options of files are max_megabytes=100, max_backups=5 (at most 1000), sync=true"
            }
        })
    }
}

/// How one attempt ended without acceptance.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// No request of the signal is sent to this destination.
    NotSentThere,
    /// The request is larger than OTLP allows, and was not sent.
    RequestTooLarge {
        /// Its size before compression.
        bytes: usize,
    },
    /// The host's name has no address.
    Resolve(io::Error),
    /// No connection was made.
    Connect(io::Error),
    /// The proxy made no connection to the receiver.
    Proxy {
        /// HTTP status code of its answer to `CONNECT`.
        code: u16,
        /// There are proxies.
        built_in: ProxyBuiltIn,
    },
    /// There is no secure connection.
    Tls(TlsProblem, TlsBuiltIn),
    /// The connection ended before an answer.
    Disconnected(io::Error),
    /// The time for one attempt passed; the receiver may have taken the request.
    Timeout(Duration),
    /// The answer is not HTTP/1.
    NotHttp,
    /// The answer is larger than OTLP allows.
    ResponseTooLarge,
    /// The file or standard output did not take it.
    Write(io::Error),
    /// The request cannot be written as JSON: it is none.
    Json(otlp_encode::Error),
    /// The answer is not HTTP/2.
    NotHttp2 {
        /// Whether it is HTTP/1.
        http1: bool,
        /// It was expected to be.
        built_in: GrpcBuiltIn,
    },
    /// A call of gRPC ended with an error.
    Grpc {
        /// Its status.
        code: Code,
        /// The receiver's own words, cut and clean, or what the status comes from.
        message: Option<String>,
        /// Whether the receiver allows another attempt by a `RetryInfo`.
        retry_info: bool,
        /// There are calls.
        built_in: GrpcBuiltIn,
    },
    /// The receiver answered with an error.
    Status {
        /// HTTP status code.
        code: u16,
        /// The receiver's own words, cut and clean.
        message: Option<String>,
    },
}

impl Failure {
    /// Whether OTLP allows another attempt.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Certificates are renewed, and proxies told to let traffic pass, while data waits.
            Self::Resolve(_) | Self::Connect(_) | Self::Proxy { .. } | Self::Tls(..) => true,
            // The receiver may have taken it; who sends again must count that.
            Self::Disconnected(_) | Self::Timeout(_) => true,
            Self::Status { code, .. } => matches!(code, 429 | 502 | 503 | 504),
            // A full disk may be emptied; who read our output and ended does not come back, and a limit stays.
            Self::Write(error) => {
                !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::FileTooLarge)
            }
            // Servers built on tonic say OUT_OF_RANGE of a message that is too large, and would say it for ever.
            Self::Grpc { code, message, retry_info, .. } => {
                code.is_retryable(*retry_info) && !message.as_deref().is_some_and(is_about_size)
            }
            Self::NotHttp
            | Self::NotHttp2 { .. }
            | Self::ResponseTooLarge
            | Self::Json(_)
            | Self::NotSentThere
            | Self::RequestTooLarge { .. } => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSentThere => f.write_str("no target is known for this signal"),
            Self::RequestTooLarge { bytes } => {
                write!(f, "a request of {bytes} bytes is larger than the {MAX_REQUEST} that OTLP allows")
            }
            Self::Resolve(error) => write!(f, "the host's name has no address ({error})"),
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => f.write_str("connection refused"),
                io::ErrorKind::TimedOut => f.write_str("no connection in time"),
                _ => write!(f, "no connection ({error})"),
            },
            Self::Proxy { code, .. } => {
                write!(f, "the proxy makes no connection to the receiver: it answered {code}")?;
                reason(*code).map_or(Ok(()), |reason| write!(f, " {reason}"))
            }
            Self::Tls(problem, _) => problem.fmt(f),
            Self::Disconnected(error) => write!(f, "the connection ended before an answer ({error})"),
            Self::Timeout(after) => write!(f, "no answer within {} s", show_fixed(after.as_secs_f64(), 1)),
            Self::NotHttp => f.write_str("the answer is not HTTP/1.1"),
            Self::NotHttp2 { http1: true, .. } => f.write_str("the answer is HTTP/1, not HTTP/2"),
            Self::NotHttp2 { http1: false, .. } => f.write_str("the answer is not HTTP/2"),
            Self::ResponseTooLarge => write!(f, "the answer is larger than {} MiB", MAX_RESPONSE >> 20),
            Self::Write(error) => write!(f, "it cannot be written ({error})"),
            Self::Json(error) => write!(f, "the request cannot be written as JSON ({error})"),
            Self::Grpc { code, message, .. } => {
                write!(f, "the call ended with {code}")?;
                message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
            }
            Self::Status { code, message } => {
                write!(f, "the receiver answered {code}")?;
                if let Some(reason) = reason(*code) {
                    write!(f, " {reason}")?;
                }
                message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
            }
        }
    }
}

impl Failure {
    /// What happened to a request of `signal`, and what to do about it where there is a likely cause.
    pub fn describe(&self, signal: Signal) -> String {
        match self.hint(signal) {
            Some(hint) => format!("{self}; {hint}"),
            None => self.to_string(),
        }
    }

    fn hint(&self, signal: Signal) -> Option<String> {
        let signal = signal.noun();
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Some(format!("is an OTLP receiver with {signal} enabled listening there?"))
            }
            Self::Status { code: 404 | 405, .. } => Some(format!("does this receiver take {signal}?")),
            Self::Status { code: 401 | 403, .. } => {
                Some("credentials belong into OTEL_EXPORTER_OTLP_HEADERS".to_owned())
            }
            Self::NotHttp2 { http1: true, .. } => {
                Some("this looks like OTLP/HTTP, usually on port 4318; OTLP/gRPC is usually on 4317".to_owned())
            }
            Self::NotHttp2 { http1: false, .. } => Some("OTLP/gRPC is usually on port 4317".to_owned()),
            Self::Grpc { code: Code::Unimplemented, .. } => {
                Some(format!("does this receiver take {signal} over gRPC?"))
            }
            Self::Grpc { code: Code::Unauthenticated | Code::PermissionDenied, .. } => {
                Some("credentials belong into OTEL_EXPORTER_OTLP_HEADERS".to_owned())
            }
            Self::Grpc { code: Code::ResourceExhausted | Code::OutOfRange, message: Some(message), .. }
                if is_about_size(message) =>
            {
                Some("many receivers take messages of up to 4 MiB: raise the receiver's limit, or send less at once".to_owned())
            }
            Self::Status { code: 301 | 302 | 303 | 307 | 308, .. } => {
                Some("redirects are not followed; the endpoint must be where they lead".to_owned())
            }
            Self::Proxy { code: 407, .. } | Self::Status { code: 407, .. } => {
                Some("credentials belong into the proxy's URL, as in http://user:password@proxy:3128".to_owned())
            }
            Self::Tls(problem, _) => problem.hint().map(str::to_owned),
            Self::NotHttp => {
                Some("is it https://? OTLP/HTTP is usually on port 4318; 4317 is OTLP/gRPC".to_owned())
            }
            _ => None,
        }
    }
}

/// Whether a receiver's words are about the size of the message, as grpc, grpc-go and tonic put it.
fn is_about_size(message: &str) -> bool {
    ["larger than max", "too large"].iter().any(|words| text::contains(message, words))
}

/// The reason phrase of the codes that receivers and proxies answer with.
fn reason(code: u16) -> Option<&'static str> {
    Some(match code {
        301 | 302 | 303 | 307 | 308 => "Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => return None,
    })
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { source_name, problem } => {
                write!(f, "cannot use the URL in {source_name}: {problem}")
            }
            Self::Metadata { name } => write!(
                f,
                "cannot send the header {} over gRPC: names hold letters, digits, '-', '_' and '.', and values \
                 printable ASCII",
                Escaped(name)
            ),
            Self::Protocol { variable, protocol } => {
                write!(f, "{variable} asks for {}, which this build does not speak", protocol.name())?;
                f.write_str(match protocol {
                    Protocol::HttpProtobuf => "",
                    Protocol::HttpJson => " (it lacks the cargo feature `json`)",
                    Protocol::Grpc => " (it lacks the cargo feature `grpc`)",
                })?;
                f.write_str("; use http/protobuf (usually port 4318)")
            }
            Self::Json { variable } => {
                write!(f, "{variable} asks for JSON, which this build does not write (feature `json`)")
            }
            Self::ClientCertificate { variable, missing } => {
                write!(
                    f,
                    "{variable} is set and {missing} is not: a client's certificate and its key go together"
                )
            }
            Self::TlsFile { path: Some(path), problem } => {
                write!(f, "cannot use {} for TLS: {problem}", path.display())
            }
            Self::TlsFile { path: None, problem } => write!(f, "cannot use TLS: {problem}"),
        }
    }
}

// The whole chain is in the one line that Display gives.
impl std::error::Error for ExportError {}
