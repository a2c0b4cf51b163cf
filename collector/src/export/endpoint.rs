//! Where a signal is sent: an `http://`, `https://` or `unix://` URL, taken apart.

use bpf_loader::text;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::error::EndpointProblem;
use crate::percent;

/// Longest path of a unix socket: `sun_path` less the NUL at its end.
const MAX_SOCKET_PATH: usize = 107;

/// How an endpoint is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`: TCP.
    Http,
    /// `https://`: TLS over TCP.
    Https,
    /// `unix:///path`: a unix socket.
    Unix,
}

impl Scheme {
    /// What a URL begins with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::Unix].into_iter().find(|own| own.name().eq_ignore_ascii_case(name))
    }
}

/// A checked URL. `Display` and `Debug` leave its query out, which may hold a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
    authority: String,
    path: String,
    query: Option<String>,
    /// The socket's path as in the URL; empty where it is none.
    socket: String,
}

impl Endpoint {
    /// Takes `url` apart as it is; an empty path is `/`, and so is the one of a unix socket, whose URL has no room
    /// for another.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, EndpointProblem> {
        let url = url.trim();
        // Anything else could end the request line or a header early.
        if url.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(EndpointProblem::BadCharacter);
        }
        let (scheme, rest) = text::split_once(url, "://").ok_or(EndpointProblem::NoScheme)?;
        let scheme = Scheme::parse(scheme).ok_or(EndpointProblem::NoScheme)?;
        let rest = rest.split('#').next().unwrap_or_default();
        match scheme {
            Scheme::Unix => Self::parse_unix(rest),
            Scheme::Https if cfg!(not(feature = "tls")) => Err(EndpointProblem::Tls),
            Scheme::Http => Self::parse_tcp(scheme, 80, rest),
            Scheme::Https => Self::parse_tcp(scheme, 443, rest),
        }
    }

    fn parse_unix(path: &str) -> Result<Self, EndpointProblem> {
        let decoded = percent::decode(path.as_bytes());
        let control = decoded.iter().any(u8::is_ascii_control);
        if !path.starts_with('/')
            || path.as_bytes().contains(&b'?')
            || decoded.len() > MAX_SOCKET_PATH
            || control
        {
            return Err(EndpointProblem::Socket);
        }
        Ok(Self {
            scheme: Scheme::Unix,
            host: "localhost".to_owned(),
            port: 0,
            authority: "localhost".to_owned(),
            path: "/".to_owned(),
            query: None,
            socket: path.to_owned(),
        })
    }

    fn parse_tcp(scheme: Scheme, default_port: u16, rest: &str) -> Result<Self, EndpointProblem> {
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        if authority.as_bytes().contains(&b'@') {
            return Err(EndpointProblem::Credentials);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (address, after) = inner.split_once(']').ok_or(EndpointProblem::NoHost)?;
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(EndpointProblem::NoHost);
                }
                let port = match after.strip_prefix(':') {
                    None if after.is_empty() => "",
                    None => return Err(EndpointProblem::BadPort),
                    Some(port) => port,
                };
                (address, port)
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        if host.is_empty() {
            return Err(EndpointProblem::NoHost);
        }
        let port = match port {
            "" => default_port,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or(EndpointProblem::BadPort)?
            }
            _ => return Err(EndpointProblem::BadPort),
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            authority: authority.trim_end_matches(':').to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query: query.map(str::to_owned),
            socket: String::new(),
        })
    }

    /// The endpoint of a signal under this base: `path` comes after the base's own.
    pub fn join(mut self, path: &str) -> Self {
        let base = self.path.trim_end_matches('/');
        self.path = format!("{base}{path}");
        self
    }

    /// The server alone: path `/` and no query.
    pub fn origin(&self) -> Self {
        Self { path: "/".to_owned(), query: None, ..self.clone() }
    }

    /// The same server with what a request line says, as [`Self::target`] gives it.
    pub fn with_target(self, target: &str) -> Self {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Self { path: path.to_owned(), query: query.map(str::to_owned), ..self }
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The path of the unix socket, if it is one.
    pub fn socket_path(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::Unix)
            .then(|| PathBuf::from(OsString::from_vec(percent::decode(self.socket.as_bytes()))))
    }

    /// Host name or address, without brackets; `localhost` for a unix socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; 0 for a unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as `CONNECT` names them.
    pub(super) fn address(&self) -> String {
        match self.host.as_bytes().contains(&b':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What the request line says: path and query.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.name();
        match self.scheme {
            Scheme::Unix => write!(f, "{scheme}://{}", self.socket),
            Scheme::Http | Scheme::Https => write!(f, "{scheme}://{}{}", self.authority, self.path),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, host, port, authority, target) in [
            ("http://localhost:4318", "localhost", 4318, "localhost:4318", "/"),
            ("HTTP://a.example", "a.example", 80, "a.example", "/"),
            ("http://a.example:/p", "a.example", 80, "a.example", "/p"),
            ("http://[::1]:4318/x?y=1#z", "::1", 4318, "[::1]:4318", "/x?y=1"),
            ("http://[::1]", "::1", 80, "[::1]", "/"),
            ("http://h?k=v", "h", 80, "h", "/?k=v"),
            (" http://127.0.0.1/a/ ", "127.0.0.1", 80, "127.0.0.1", "/a/"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{url}");
            assert_eq!((endpoint.authority(), &*endpoint.target()), (authority, target), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        use EndpointProblem::*;
        for (url, problem) in [
            ("localhost:4318", NoScheme),
            ("ftp://a", NoScheme),
            ("", NoScheme),
            ("unix://a/b", Socket),
            ("unix:///a?b", Socket),
            ("unix:///a%00b", Socket),
            ("unix:///a%0ab", Socket),
            ("http://", NoHost),
            ("http:///v1", NoHost),
            ("http://:4318", NoHost),
            ("http://[::1", NoHost),
            ("http://[x]", NoHost),
            ("http://[::1]x", BadPort),
            ("http://a:b", BadPort),
            ("http://a:0", BadPort),
            ("http://a:+80", BadPort),
            ("http://a:65536", BadPort),
            ("http://user:secret@a", Credentials),
            ("http://a/\r\nHost: b", BadCharacter),
            ("http://a/ b", BadCharacter),
            ("http://é", BadCharacter),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap_err(), problem, "{url}");
        }
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn https_needs_the_feature() {
        let problem = Endpoint::parse("https://a").unwrap_err();
        assert!(problem.to_string().contains("feature `tls`"), "{problem}");
    }

    #[test]
    #[cfg(feature = "tls")]
    fn https_has_a_port_of_its_own() {
        let endpoint = Endpoint::parse("HTTPS://a.example/x").unwrap();
        assert_eq!((endpoint.scheme(), endpoint.port()), (Scheme::Https, 443));
        assert_eq!(endpoint.to_string(), "https://a.example/x");
    }

    #[test]
    fn unix_sockets_have_a_path_and_the_usual_targets() {
        let endpoint = Endpoint::parse("unix:///run/a%20b.sock").unwrap();
        assert_eq!(endpoint.socket_path().unwrap().to_str(), Some("/run/a b.sock"));
        assert_eq!((endpoint.scheme(), endpoint.authority()), (Scheme::Unix, "localhost"));
        assert_eq!(endpoint.to_string(), "unix:///run/a%20b.sock");
        assert_eq!(endpoint.origin().join("/v1/logs").target(), "/v1/logs");
        let long = |length| Endpoint::parse(&format!("unix:///{}", "a".repeat(length - 1)));
        assert!(long(MAX_SOCKET_PATH).is_ok());
        assert_eq!(long(MAX_SOCKET_PATH + 1).unwrap_err(), EndpointProblem::Socket);
    }

    #[test]
    fn signal_paths_follow_the_bases_own() {
        for (base, joined) in [
            ("http://h", "http://h/v1/x"),
            ("http://h/", "http://h/v1/x"),
            ("http://h/a", "http://h/a/v1/x"),
            ("http://h/a/", "http://h/a/v1/x"),
        ] {
            assert_eq!(Endpoint::parse(base).unwrap().join("/v1/x").to_string(), joined);
        }
        assert_eq!(Endpoint::parse("http://h/a?k=v").unwrap().join("/v1/x").target(), "/a/v1/x?k=v");
    }

    #[test]
    fn queries_are_not_shown() {
        let endpoint = Endpoint::parse("http://h/a?key=secret").unwrap();
        assert!(!format!("{endpoint} {endpoint:?}").contains("secret"));
    }
}
