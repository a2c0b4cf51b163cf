//! Where a signal is sent: an `http://` URL, taken apart.

use std::fmt;

use super::error::EndpointProblem;

/// A checked URL. `Display` and `Debug` leave its query out, which may hold a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    authority: String,
    path: String,
    query: Option<String>,
}

impl Endpoint {
    /// Takes `url` apart as it is; an empty path is `/`.
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
        let (scheme, rest) = url.split_once("://").ok_or(EndpointProblem::NoScheme)?;
        if scheme.eq_ignore_ascii_case("https") {
            return Err(EndpointProblem::Tls);
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(EndpointProblem::NoScheme);
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        if authority.contains('@') {
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
            "" => 80,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or(EndpointProblem::BadPort)?
            }
            _ => return Err(EndpointProblem::BadPort),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            authority: authority.trim_end_matches(':').to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query: query.map(str::to_owned),
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

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
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
        write!(f, "http://{}{}", self.authority, self.path)
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
            ("https://a", Tls),
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
