//! The resource of the agent's own telemetry, and what of it marks everything that the agent observes.

use super::env::Env;
use crate::enrich::host::HostFacts;
use crate::percent;
use bpf_loader::text;

/// Longest value of `OTEL_RESOURCE_ATTRIBUTES`, in bytes: every resource in every request repeats it.
const MAX_ATTRIBUTES: usize = 8192;
/// Longest name of a service, in bytes.
const MAX_SERVICE_NAME: usize = 255;

/// `telemetry.sdk.name`: this is no SDK of OpenTelemetry's, so it must not be `opentelemetry`.
const SDK_NAME: &str = "ebpf-otlp";

/// Beginnings of keys that are true of the agent and not of what it observes: who it is, and the container and the
/// workload that it is in. Clusters, nodes, hosts, clouds and deployment environments are true of both.
const OF_THE_AGENT: [&str; 5] = ["container.", "k8s.", "process.", "service.", "telemetry."];
/// Exceptions from them.
const SHARED: [&str; 2] = ["k8s.cluster.", "k8s.node."];

/// `telemetry.sdk.*` of everything that is exported.
pub const TELEMETRY_SDK: [(&str, &str); 3] = [
    ("telemetry.sdk.language", "rust"),
    ("telemetry.sdk.name", SDK_NAME),
    ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
];

/// What the agent says about itself in its own telemetry. The attributes that are conventions follow
/// [`SCHEMA_URL`](crate::convert::profiles::SCHEMA_URL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentResource {
    attributes: Vec<(String, String)>,
    shared: SharedAttributes,
}

/// Attributes that every observed process gets too: of `OTEL_RESOURCE_ATTRIBUTES`, what is true of it as well. No key is
/// there twice or begins with `service.`, `process.`, `container.` or `telemetry.`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedAttributes(Vec<(String, String)>);

impl SharedAttributes {
    /// Keys and values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> + ExactSizeIterator {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// With what is known of the machine, where nothing else is said of it.
    pub fn with_host(mut self, facts: &HostFacts) -> Self {
        for (key, value) in facts.iter() {
            if !self.0.iter().any(|(own, _)| own == key) {
                self.0.push((key.to_owned(), value.to_owned()));
            }
        }
        self
    }
}

impl AgentResource {
    /// From `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, which is stronger. `executable` is the name of the
    /// agent's program, and `instance` a random number for `service.instance.id`; both count where nothing else is set.
    ///
    /// Also a line for each variable that was ignored: anything wrong in `OTEL_RESOURCE_ATTRIBUTES` discards all of it.
    pub fn from_env(
        env: &dyn Fn(&str) -> Option<String>,
        executable: &str,
        instance: u128,
    ) -> (Self, Vec<String>) {
        let mut env = Env::new(env);
        let given = match env.get("OTEL_RESOURCE_ATTRIBUTES").map(|list| parse(&list)) {
            Some(Ok(attributes)) => attributes,
            Some(Err(problem)) => {
                env.warn(format!("ignoring all of OTEL_RESOURCE_ATTRIBUTES: {problem}"));
                Vec::new()
            }
            None => Vec::new(),
        };
        let is_shared = |key: &str| {
            SHARED.iter().any(|prefix| key.starts_with(prefix))
                || !OF_THE_AGENT.iter().any(|prefix| key.starts_with(prefix))
        };
        let shared = SharedAttributes(given.iter().filter(|(key, _)| is_shared(key)).cloned().collect());

        let mut attributes = given;
        let mut set = |key: &str, value: &str| {
            attributes.retain(|(own, _)| own != key);
            attributes.push((key.to_owned(), value.to_owned()));
        };
        TELEMETRY_SDK.iter().for_each(|(key, value)| set(key, value));
        match env.get("OTEL_SERVICE_NAME") {
            Some(name) if name.len() <= MAX_SERVICE_NAME => set("service.name", &name),
            Some(_) => env.warn(format!("ignoring OTEL_SERVICE_NAME: longer than {MAX_SERVICE_NAME} bytes")),
            None => {}
        }
        for (key, default) in
            [("service.name", executable.to_owned()), ("service.instance.id", uuid(instance))]
        {
            // A service without a name is none.
            if !attributes.iter().any(|(own, value)| own == key && !value.is_empty()) {
                attributes.retain(|(own, _)| own != key);
                attributes.push((key.to_owned(), default));
            }
        }
        (Self { attributes, shared }, env.warnings)
    }

    /// Keys, each of them once, and values.
    pub fn attributes(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> + ExactSizeIterator {
        self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// What marks everything that the agent observes.
    pub fn shared(&self) -> &SharedAttributes {
        &self.shared
    }
}

/// `key=value,key=value`, both percent-encoded; of one key, the last counts. What is wrong, without the text.
fn parse(list: &str) -> Result<Vec<(String, String)>, String> {
    if list.len() > MAX_ATTRIBUTES {
        return Err(format!("it is longer than {MAX_ATTRIBUTES} bytes"));
    }
    let mut attributes: Vec<(String, String)> = Vec::new();
    for (position, pair) in list.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        let entry = || format!("entry {}", position + 1);
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{} is no key=value", entry()))?;
        if value.as_bytes().contains(&b'=') {
            return Err(format!("{} has a second =, which must be %3D", entry()));
        }
        let decoded = |text: &str| {
            let text = text.trim().as_bytes();
            let decoded = percent::is_encoded(text).then(|| String::from_utf8(percent::decode(text)).ok());
            // A variable that is not UTF-8 comes with U+FFFD in it.
            let decoded = decoded.flatten().filter(|decoded| !text::contains(decoded, "\u{fffd}"));
            decoded.ok_or_else(|| format!("{} is no percent-encoded UTF-8", entry()))
        };
        let (key, value) = (decoded(key)?, decoded(value)?);
        if key.is_empty() {
            return Err(format!("{} has no key", entry()));
        }
        attributes.retain(|(own, _)| *own != key);
        attributes.push((key, value));
    }
    Ok(attributes)
}

/// A random number as a UUID of version 4.
fn uuid(random: u128) -> String {
    // (Numbers of 128 bits have code of their own to write them.)
    let (high, low) = ((random >> 64) as u64, random as u64);
    let hex = format!("{:016x}{:016x}", high & !0xf000 | 0x4000, low & !(0x3 << 62) | 0x2 << 62);
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIL: &str = "00000000-0000-4000-8000-000000000000";

    fn resource(vars: &[(&str, &str)]) -> (AgentResource, Vec<String>) {
        let lookup =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        AgentResource::from_env(&lookup, "agent", 0)
    }

    fn value<'a>(resource: &'a AgentResource, key: &str) -> Option<&'a str> {
        let mut found = resource.attributes().filter(|(own, _)| *own == key);
        let first = found.next().map(|(_, value)| value);
        assert!(found.next().is_none(), "{key} is there twice");
        first
    }

    #[test]
    fn what_must_be_there_is_there() {
        let (resource, warnings) = resource(&[]);
        assert!(warnings.is_empty());
        let mut attributes: Vec<_> = resource.attributes().collect();
        attributes.sort_unstable();
        assert_eq!(
            attributes,
            [
                ("service.instance.id", NIL),
                ("service.name", "agent"),
                ("telemetry.sdk.language", "rust"),
                ("telemetry.sdk.name", "ebpf-otlp"),
                ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
            ]
        );
        assert_eq!(resource.shared(), &SharedAttributes::default());
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn service_names_by_precedence() {
        let attributes = |list| ("OTEL_RESOURCE_ATTRIBUTES", list);
        for (vars, name) in [
            (&[("OTEL_SERVICE_NAME", "own"), attributes("service.name=listed")][..], "own"),
            (&[("OTEL_SERVICE_NAME", ""), attributes("service.name=listed")], "listed"),
            (&[("OTEL_SERVICE_NAME", "own"), attributes("broken")], "own"),
            (&[attributes("service.name=")], "agent"),
        ] {
            assert_eq!(value(&resource(vars).0, "service.name"), Some(name), "{vars:?}");
        }
        let long = "x".repeat(256);
        let (resource, warnings) = resource(&[("OTEL_SERVICE_NAME", &long)]);
        assert_eq!(value(&resource, "service.name"), Some("agent"));
        assert_eq!(warnings, ["ignoring OTEL_SERVICE_NAME: longer than 255 bytes"]);
    }

    #[test]
    fn attributes_are_decoded_and_the_last_of_a_key_counts() {
        let list =
            " a%2Cb = c%3Dd%20 ,, e= , f=1,f=é 2,telemetry.sdk.name=opentelemetry,service.instance.id=i,";
        let (resource, warnings) = resource(&[("OTEL_RESOURCE_ATTRIBUTES", list)]);
        assert!(warnings.is_empty());
        for (key, expected) in [
            ("a,b", Some("c=d ")),
            ("e", Some("")),
            ("f", Some("é 2")),
            ("g", None),
            ("telemetry.sdk.name", Some("ebpf-otlp")),
            ("service.instance.id", Some("i")),
        ] {
            assert_eq!(value(&resource, key), expected, "{key}");
        }
    }

    #[test]
    fn anything_wrong_discards_all_and_shows_nothing() {
        let long = format!("a=s3cret{}", "x".repeat(8192));
        for (list, problem) in [
            ("a=1,s3cret", "entry 2 is no key=value"),
            ("a=1,b=s3cret=1", "entry 2 has a second =, which must be %3D"),
            ("a=1,b=s3cret%2", "entry 2 is no percent-encoded UTF-8"),
            ("a=1,b=s3cret%ff", "entry 2 is no percent-encoded UTF-8"),
            ("a=1,b=s3cret\u{fffd}", "entry 2 is no percent-encoded UTF-8"),
            ("a=1,%zz=s3cret", "entry 2 is no percent-encoded UTF-8"),
            ("a=1, =s3cret", "entry 2 has no key"),
            (&long, "it is longer than 8192 bytes"),
        ] {
            let (resource, warnings) = resource(&[("OTEL_RESOURCE_ATTRIBUTES", list)]);
            assert_eq!(warnings, [format!("ignoring all of OTEL_RESOURCE_ATTRIBUTES: {problem}")]);
            assert_eq!((value(&resource, "a"), resource.shared().iter().len()), (None, 0));
        }
    }

    #[test]
    fn what_the_agent_is_stays_with_the_agent() {
        let list = "deployment.environment.name=prod,service.namespace=n,service.version=1,process.pid=1,\
                    container.id=c,k8s.pod.name=p,k8s.namespace.name=n,k8s.cluster.name=c,k8s.node.name=n,host.name=h";
        let (resource, _) = resource(&[("OTEL_RESOURCE_ATTRIBUTES", list)]);
        let shared: Vec<_> = resource.shared().iter().map(|(key, _)| key).collect();
        assert_eq!(shared, ["deployment.environment.name", "k8s.cluster.name", "k8s.node.name", "host.name"]);
        assert_eq!(value(&resource, "k8s.pod.name"), Some("p"));
    }
}
