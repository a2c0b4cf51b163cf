//! What telemetry says about the machine.

use bpf_loader::machine::Machine;

use crate::symbolize::{Host, read_limited};

/// Bytes that are read of each file.
const MAX_FILE: usize = 16 * 1024;

/// `host.*` and `os.*` of semantic conventions, with the node and the cluster where the environment names them. Keys are
/// there once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts(Vec<(&'static str, String)>);

/// Names of variables by which Kubernetes' downward API may tell an agent where it runs, and the attributes that they are.
/// Those of the pod are the agent's own.
const VARIABLES: [(&str, &str); 5] = [
    ("K8S_CLUSTER_NAME", "k8s.cluster.name"),
    ("K8S_NODE_NAME", "k8s.node.name"),
    ("K8S_NAMESPACE_NAME", "k8s.namespace.name"),
    ("K8S_POD_NAME", "k8s.pod.name"),
    ("K8S_POD_UID", "k8s.pod.uid"),
];
/// How many of them are true of everything on the machine.
const SHARED: usize = 2;

impl HostFacts {
    /// Reads them.
    pub fn read(host: &Host, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let read = |path: std::path::PathBuf| {
            String::from_utf8_lossy(&read_limited(&path, MAX_FILE).unwrap_or_default()).into_owned()
        };
        let kernel = |name: &str| read(host.proc.join("sys/kernel").join(name));
        let release = ["etc/os-release", "usr/lib/os-release"].map(|path| read(host.root.join(path)));
        let release = release.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        let id = ["etc/machine-id", "var/lib/dbus/machine-id"].map(|path| read(host.root.join(path)));
        Self::new(
            &kernel("hostname"),
            id.iter().find(|text| !text.trim().is_empty()).map_or("", |text| text),
            &release,
            &kernel("osrelease"),
            env,
        )
    }

    /// From the contents of files.
    fn new(
        name: &str,
        machine_id: &str,
        os_release: &str,
        kernel: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut facts = Vec::new();
        let mut add = |key, value: &str| {
            let value: String = value.trim().chars().filter(|character| !character.is_control()).collect();
            if !value.is_empty() {
                facts.push((key, value));
            }
        };
        add("host.name", name);
        // Not yet initialised, it is a word.
        add("host.id", if machine_id.trim() == "uninitialized" { "" } else { machine_id });
        add("host.arch", arch(Machine::running().map_or(std::env::consts::ARCH, Machine::name)));
        add("os.type", "linux");
        let field = |key: &str| {
            let value = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches(['"', '\''])
        };
        add("os.name", field("NAME"));
        add("os.version", field("VERSION_ID"));
        let kernel = format!("Linux {}", kernel.trim());
        add(
            "os.description",
            &match field("PRETTY_NAME") {
                "" => kernel,
                pretty => format!("{pretty} ({kernel})"),
            },
        );
        for (variable, key) in VARIABLES.iter().take(SHARED) {
            add(key, &env(variable).unwrap_or_default());
        }
        Self(facts)
    }

    /// Keys and values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }
}

/// Of the pod that the agent runs in, what the environment says.
pub fn own_pod(env: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let own = VARIABLES.iter().skip(SHARED);
    own.filter_map(|(variable, key)| Some((*key, env(variable).filter(|value| !value.is_empty())?))).collect()
}

/// The architecture as the conventions call it.
fn arch(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_variables() {
        let release = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='13'\nID=debian\n";
        let env = |name: &str| match name {
            "K8S_NODE_NAME" => Some("node-1".to_owned()),
            "K8S_POD_NAME" => Some("agent-x".to_owned()),
            _ => None,
        };
        let facts = HostFacts::new("box\n", "0123\n", release, "6.12.1\n", &env);
        let get = |key| facts.iter().find(|(own, _)| *own == key).map(|(_, value)| value);
        for (key, value) in [
            ("host.name", Some("box")),
            ("host.id", Some("0123")),
            ("os.type", Some("linux")),
            ("os.name", Some("Debian GNU/Linux")),
            ("os.version", Some("13")),
            ("os.description", Some("Debian GNU/Linux 13 (trixie) (Linux 6.12.1)")),
            ("k8s.node.name", Some("node-1")),
            ("k8s.pod.name", None),
        ] {
            assert_eq!(get(key), value, "{key}");
        }
        assert_eq!(own_pod(&env), [("k8s.pod.name", "agent-x".to_owned())]);
    }

    #[test]
    fn what_is_missing_is_left_out() {
        let facts = HostFacts::new("", "uninitialized\n", "", "", &|_| None);
        let keys: Vec<_> = facts.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["host.arch", "os.type", "os.description"]);
    }

    #[test]
    fn this_machine() {
        let facts = HostFacts::read(&Host::default(), &|_| None);
        assert!(facts.iter().any(|(key, value)| key == "host.name" && !value.is_empty()));
    }
}
