//! Proofs that a feature is built in.
//!
//! Without the feature there is no such value, and none of what holds one: the compiler leaves out all that needs it, where a
//! condition at each place would have to be repeated.

macro_rules! built_in {
    ($($(#[$doc:meta])* $name:ident $($feature:literal)|+)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name(#[cfg(not(any($(feature = $feature),+)))] std::convert::Infallible);

            impl $name {
                /// The proof, for code that is built with the feature alone.
                #[cfg(any($(feature = $feature),+))]
                pub const HERE: Self = Self();

                /// The proof, if the feature is built in.
                pub fn get() -> Option<Self> {
                    #[cfg(any($(feature = $feature),+))]
                    return Some(Self::HERE);
                    #[cfg(not(any($(feature = $feature),+)))]
                    return None;
                }
            }
        )*
    };
}

built_in! {
    /// OTLP/gRPC.
    GrpcBuiltIn "grpc"
    /// gzip of requests.
    GzipBuiltIn "gzip"
    /// OTLP as JSON.
    JsonBuiltIn "json"
    /// The port for health checks and metrics.
    ListenBuiltIn "listen"
    /// HTTP proxies.
    ProxyBuiltIn "proxy"
    /// Windows that no receiver gets: they are shown, or served at the port.
    ShownBuiltIn "listen" | "terminal"
    /// The queue on disk.
    SpoolBuiltIn "spool"
    /// What shows on a terminal.
    TerminalBuiltIn "terminal"
    /// TLS.
    TlsBuiltIn "tls"
}
