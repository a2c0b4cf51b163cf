//! Which servers are asked, and where files are kept.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::export::{Endpoint, EndpointProblem, Scheme};

/// What stands for the servers of `DEBUGINFOD_URLS` in a list of servers.
pub const ENVIRONMENT: &str = "env";
/// Bytes that files take at most, unless it is said.
const CAPACITY: u64 = 1 << 30;
/// What debuginfod's clients wait for a server to begin.
const TIMEOUT: Duration = Duration::from_secs(90);
/// How long a file may take.
const MAX_TIME: Duration = Duration::from_secs(600);
/// Seconds that a variable may say: a day.
const MAX_SECONDS: u64 = 86_400;
/// Servers that are asked.
const MAX_SERVERS: usize = 16;

/// How files are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Servers, in the order in which they are asked.
    pub servers: Vec<Endpoint>,
    /// Where files are kept. What is there by names of ours is removed for want of room.
    pub folder: PathBuf,
    /// Where other clients of debuginfod keep theirs, which are used, too.
    pub others: Option<PathBuf>,
    /// Bytes that the folder may take.
    pub capacity: u64,
    /// Bytes that a file may have.
    pub max_file: u64,
    /// How long a server may take to begin, and for each 100,000 bytes.
    pub timeout: Duration,
    /// How long a file may take.
    pub max_time: Duration,
}

/// Why no files can be fetched. Wrong usage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
    /// A server's URL cannot be used.
    Server {
        /// `DEBUGINFOD_URLS`, or the URL's place.
        place: &'static str,
        /// What is wrong.
        problem: EndpointProblem,
    },
    /// Only servers at `http://` and `https://` are asked.
    Scheme,
    /// The servers of the environment are wanted, and it names none.
    NoServers,
    /// There are too many.
    TooMany,
    /// Nothing says where files are kept.
    NoFolder,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { place, problem } => write!(f, "{place}: {problem}"),
            Self::Scheme => f.write_str("debuginfod servers are at http:// or https://"),
            Self::NoServers => {
                f.write_str("debuginfod: DEBUGINFOD_URLS, of which the servers are to be taken, names none")
            }
            Self::TooMany => write!(f, "debuginfod: there may be {MAX_SERVERS} servers"),
            Self::NoFolder => f.write_str(
                "debuginfod: nothing says where to keep files: set symbols.debuginfod_cache, or XDG_CACHE_HOME or HOME",
            ),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Takes servers as the user names them, `env` for those of the environment; `None` where there are none. `folder` and `capacity`
    /// are what the user says of them, `root` is whether this user is, and `env` looks up a variable.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn resolve(
        servers: &[String],
        folder: Option<PathBuf>,
        capacity: Option<u64>,
        root: bool,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        if servers.is_empty() {
            return Ok(None);
        }
        let get =
            |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut endpoints = Vec::new();
        for server in servers {
            if server == ENVIRONMENT {
                let urls = get("DEBUGINFOD_URLS").ok_or(SettingsError::NoServers)?;
                from_environment(&urls, &mut endpoints)?;
            } else {
                endpoints.push(parse("debuginfod", server)?);
            }
        }
        if endpoints.is_empty() {
            return Err(SettingsError::NoServers);
        }
        if endpoints.len() > MAX_SERVERS {
            return Err(SettingsError::TooMany);
        }
        let capacity = capacity.unwrap_or(CAPACITY);
        let number = |name: &str| get(name)?.parse::<u64>().ok().filter(|number| *number > 0);
        let seconds = |name: &str| number(name).map(|n| Duration::from_secs(n.min(MAX_SECONDS)));
        let caches = get("XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| Some(PathBuf::from(get("HOME")?).join(".cache")));
        // Root neither keeps files where somebody else may have chosen, nor takes them from there: sudo -E leaves HOME as it is.
        let caches = caches.filter(|_| !root);
        let own = || match (get("CACHE_DIRECTORY"), root) {
            // A service manager has made it. It may have made several.
            (Some(made), _) => made.split(':').next().map(|first| PathBuf::from(first).join("debuginfod")),
            (None, true) => Some(PathBuf::from("/var/cache/ebpf-otlp/debuginfod")),
            (None, false) => caches.as_ref().map(|caches| caches.join("ebpf-otlp/debuginfod")),
        };
        Ok(Some(Self {
            servers: endpoints,
            folder: folder.or_else(own).ok_or(SettingsError::NoFolder)?,
            others: get("DEBUGINFOD_CACHE_PATH")
                .map(PathBuf::from)
                .or_else(|| caches.as_ref().map(|caches| caches.join("debuginfod_client"))),
            capacity,
            // So that others need not all go for it.
            max_file: number("DEBUGINFOD_MAXSIZE").unwrap_or(u64::MAX).min(capacity / 2),
            timeout: seconds("DEBUGINFOD_TIMEOUT").unwrap_or(TIMEOUT),
            max_time: seconds("DEBUGINFOD_MAXTIME").unwrap_or(MAX_TIME),
        }))
    }
}

fn parse(place: &'static str, url: &str) -> Result<Endpoint, SettingsError> {
    let endpoint = Endpoint::parse(url).map_err(|problem| SettingsError::Server { place, problem })?;
    if endpoint.scheme() == Scheme::Unix { Err(SettingsError::Scheme) } else { Ok(endpoint) }
}

/// URLs with white space between them. Words that are none say how signatures of the files of the servers behind them are judged: of
/// servers whose files must be signed nothing is taken, since no signature is looked at here.
fn from_environment(urls: &str, endpoints: &mut Vec<Endpoint>) -> Result<(), SettingsError> {
    let mut signed = false;
    for word in urls.split_whitespace() {
        match word.strip_prefix("ima:") {
            Some(policy) => signed = policy == "enforcing",
            // Files of this host are for debuggers that look there.
            None if signed || word.starts_with("file://") => {}
            None => endpoints.push(parse("DEBUGINFOD_URLS", word)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        servers: &[&str],
        root: bool,
        env: &[(&str, &str)],
    ) -> Result<Option<Settings>, SettingsError> {
        let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
        let get = |name: &str| env.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Settings::resolve(&servers, None, None, root, &get)
    }

    #[test]
    fn nobody_is_asked_unless_the_user_says_so() {
        let env = [("DEBUGINFOD_URLS", "http://a/ https://b.example/x"), ("HOME", "/home/me")];
        assert_eq!(resolve(&[], false, &env), Ok(None));
        let settings = resolve(&["env", "http://c"], false, &env).unwrap().unwrap();
        let names: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let expected: &[&str] =
            if cfg!(feature = "tls") { &["http://a/", "https://b.example/x", "http://c/"] } else { &[] };
        assert!(cfg!(not(feature = "tls")) || names == expected, "{names:?}");
        assert_eq!(settings.folder, PathBuf::from("/home/me/.cache/ebpf-otlp/debuginfod"));
        assert_eq!(settings.others, Some("/home/me/.cache/debuginfod_client".into()));
        assert_eq!((settings.timeout, settings.max_file), (Duration::from_secs(90), 512 << 20));
    }

    #[test]
    fn variables_of_other_clients_count() {
        let env = [
            ("DEBUGINFOD_URLS", "ima:enforcing http://a ima:ignore http://b file:///srv"),
            ("DEBUGINFOD_TIMEOUT", "5"),
            ("DEBUGINFOD_MAXTIME", "0"),
            ("DEBUGINFOD_MAXSIZE", "1000"),
            ("DEBUGINFOD_CACHE_PATH", "/c"),
            ("XDG_CACHE_HOME", "/x"),
        ];
        let settings = resolve(&["env"], false, &env).unwrap().unwrap();
        assert_eq!(settings.servers, [Endpoint::parse("http://b").unwrap()]);
        assert_eq!((settings.timeout, settings.max_time), (Duration::from_secs(5), MAX_TIME));
        assert_eq!((settings.max_file, settings.others), (1000, Some("/c".into())));
        assert_eq!(settings.folder, PathBuf::from("/x/ebpf-otlp/debuginfod"));
    }

    #[test]
    fn folders_are_those_of_who_runs_it() {
        let folder =
            |root, env: &[(&str, &str)]| resolve(&["http://a"], root, env).map(|s| s.unwrap().folder);
        let (home, made) = (("HOME", "/home/me"), ("CACHE_DIRECTORY", "/var/cache/one:/var/cache/two"));
        assert_eq!(folder(true, &[home]), Ok("/var/cache/ebpf-otlp/debuginfod".into()));
        assert_eq!(folder(true, &[home, made]), Ok("/var/cache/one/debuginfod".into()));
        let others = |root, env: &[(&str, &str)]| resolve(&["http://a"], root, env).unwrap().unwrap().others;
        let named = ("DEBUGINFOD_CACHE_PATH", "/c");
        assert_eq!(others(true, &[home, ("XDG_CACHE_HOME", "/x")]), None);
        assert_eq!(others(true, &[home, named]), Some("/c".into()));
        assert_eq!(others(false, &[home]), Some("/home/me/.cache/debuginfod_client".into()));
        assert_eq!(folder(false, &[]), Err(SettingsError::NoFolder));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let env = [("HOME", "/")];
        assert_eq!(resolve(&["env"], true, &env), Err(SettingsError::NoServers));
        assert_eq!(resolve(&["unix:///x"], true, &env), Err(SettingsError::Scheme));
        assert_eq!(resolve(&["http://a"; 17], true, &env), Err(SettingsError::TooMany));
        let error = resolve(&["localhost"], true, &env).unwrap_err();
        assert!(error.to_string().starts_with("debuginfod: it must begin with http://"), "{error}");
    }
}
