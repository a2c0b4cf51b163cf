//! Proxies: which one the environment names, and tunnels through it.

use bpf_loader::text;
use std::fmt;
use std::io::{self, BufReader, ErrorKind, Write};
use std::net::IpAddr;

use super::Socket;
use crate::built_in::ProxyBuiltIn;
use crate::export::http::{USER_AGENT, read_head};
use crate::export::{Endpoint, EndpointProblem, ExportError, Failure, Scheme};
use crate::percent;

/// An HTTP proxy. `Display` and `Debug` leave its credentials out.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    endpoint: Endpoint,
    authorization: Option<String>,
    built_in: ProxyBuiltIn,
}

impl Proxy {
    /// Takes a URL apart: `http://host:port`, maybe with `user:password@` before the host; `http://` may be left out.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or that this build has no proxies.
    pub fn parse(url: &str) -> Result<Self, EndpointProblem> {
        let built_in = ProxyBuiltIn::get().ok_or(EndpointProblem::Proxy)?;
        let url = url.trim();
        let (scheme, rest) = text::split_once(url, "://").unwrap_or(("http", url));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(EndpointProblem::ProxyScheme);
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (authority, authorization) = match authority.rsplit_once('@') {
            Some((credentials, server)) => (server, Some(basic(credentials))),
            None => (authority, None),
        };
        Ok(Self { endpoint: Endpoint::parse(&format!("http://{authority}"))?, authorization, built_in })
    }

    /// The proxy's own address.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Value of `Proxy-Authorization`, a secret.
    pub(in crate::export) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The proxy through which `endpoint` is reached: `http_proxy` for `http://`, `https_proxy` for `https://`, else
/// `all_proxy`, each in upper case if there is none in lower case, and empty being unset. Never one for unix
/// sockets, `localhost` and loopback addresses, nor for what `no_proxy` names, which builds without proxies do not read.
/// `env` looks up a variable.
///
/// # Errors
///
/// [`ExportError::Endpoint`] for a URL that cannot be used: data does not go another way than asked.
pub fn from_env(
    endpoint: &Endpoint,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, Box<ExportError>> {
    let name = match endpoint.scheme() {
        Scheme::Http => "http_proxy",
        Scheme::Https => "https_proxy",
        Scheme::Unix => return Ok(None),
    };
    let get = |name: &str| {
        [name.to_owned(), name.to_ascii_uppercase()]
            .into_iter()
            .find_map(|name| env(&name).filter(|value| !value.trim().is_empty()).map(|value| (name, value)))
    };
    let Some((source_name, url)) = get(name).or_else(|| get("all_proxy")) else { return Ok(None) };
    let host = Host::new(endpoint);
    let is_in = |_: ProxyBuiltIn| get("no_proxy").is_some_and(|(_, list)| host.is_in(&list));
    if host.is_local() || ProxyBuiltIn::get().is_some_and(is_in) {
        return Ok(None);
    }
    match Proxy::parse(&url) {
        Ok(proxy) => Ok(Some(proxy)),
        Err(problem) => Err(Box::new(ExportError::Endpoint { source_name, problem })),
    }
}

/// A receiver as `no_proxy` sees it.
struct Host {
    name: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Host {
    fn new(endpoint: &Endpoint) -> Self {
        let name = endpoint.host().trim_end_matches('.').to_ascii_lowercase();
        let address = name.parse().ok().map(|address: IpAddr| address.to_canonical());
        Self { name, address, port: endpoint.port() }
    }

    fn is_local(&self) -> bool {
        self.name == "localhost" || self.address.is_some_and(|address| address.is_loopback())
    }

    fn is_in(&self, list: &str) -> bool {
        list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| self.matches(entry))
    }

    /// An entry is `*`, an address, a network (`10.0.0.0/8`), or a name that stands for itself and for all names
    /// below it, with or without `.` or `*.` before it. All but networks may end in a port.
    fn matches(&self, entry: &str) -> bool {
        if let Some((network, bits)) = entry.split_once('/') {
            return self.address.is_some_and(|address| is_within(address, network, bits));
        }
        let (name, port) = split_port(entry);
        if port.is_some_and(|port| port != self.port) {
            return false;
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return self.address == Some(address.to_canonical());
        }
        if name == "*" {
            return true;
        }
        let name = name.strip_prefix('*').unwrap_or(name).trim_matches('.').to_ascii_lowercase();
        let below = self.name.strip_suffix(&name);
        !name.is_empty()
            && self.address.is_none()
            && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
    }
}

/// An entry's name or address, without brackets, and its port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if entry.parse::<IpAddr>().is_ok() {
        return (entry, None);
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    };
    (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let (different, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits() ^ network.to_bits()), u32::BITS)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits() ^ network.to_bits(), u128::BITS),
        _ => return false,
    };
    // A shift by all bits is none to `checked_shr`.
    bits <= width && different.checked_shr(width - bits).unwrap_or(0) == 0
}

/// Credentials, percent-encoded as in a URL, for `Proxy-Authorization`.
fn basic(credentials: &str) -> String {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let pair = [&percent::decode(user.as_bytes())[..], b":", &percent::decode(password.as_bytes())].concat();
    format!("Basic {}", base64(&pair))
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS.get((group >> (18 - 6 * at) & 63) as usize).copied().unwrap_or_default();
            text.push(if at as usize > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// Asks the proxy at the other end of `socket` for a connection to `endpoint`.
pub(super) fn tunnel(socket: &mut Socket, proxy: &Proxy, endpoint: &Endpoint) -> Result<(), Box<Failure>> {
    let address = endpoint.address();
    let mut request =
        format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {USER_AGENT}\r\n");
    if let Some(authorization) = proxy.authorization() {
        request += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    request += "\r\n";
    socket.write_all(request.as_bytes()).map_err(Failure::Connect)?;
    // A byte at a time: what follows the head comes from the receiver.
    match read_head(&mut BufReader::with_capacity(1, socket)) {
        Ok(head) if matches!(head.status, 200..=299) => Ok(()),
        Ok(head) => Err(Box::new(Failure::Proxy { code: head.status, built_in: proxy.built_in })),
        Err(failure) => Err(Box::new(Failure::Connect(match *failure {
            Failure::Disconnected(error) => error,
            _ => io::Error::new(ErrorKind::InvalidData, "the proxy does not answer in HTTP/1"),
        }))),
    }
}

#[cfg(all(test, feature = "proxy"))]
mod tests;
