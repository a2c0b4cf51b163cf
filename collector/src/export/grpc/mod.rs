//! OTLP/gRPC: unary calls over HTTP/2.
//!
//! [`status`] and [`frame`] read what a receiver answers; they are pure. With the feature `grpc`, [`GrpcTransport`]
//! sends requests: crate `h2` speaks HTTP/2, and a loop of this module polls it over a non-blocking stream until an
//! answer is there or the time is over, so no runtime is needed.

pub mod status;

#[cfg(feature = "grpc")]
mod call;
#[cfg(feature = "grpc")]
pub mod frame;
#[cfg(feature = "grpc")]
mod head;
#[cfg(feature = "grpc")]
mod socket;
#[cfg(feature = "grpc")]
mod transport;

#[cfg(feature = "grpc")]
pub use transport::GrpcTransport;

pub use status::Code;
