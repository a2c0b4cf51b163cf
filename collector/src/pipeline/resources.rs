//! Resources: whose telemetry it is.
//!
//! By default, all processes of a service in a container are one, so that their numbers add up and restarts do not make new
//! ones; where it is asked for, each process is one. What a resource says of its processes holds for all of them: when one
//! joins of which something else is true, what differs is left out. Receivers take that for another resource, so it is
//! one here too, whose series begin then.

use std::sync::Arc;

use otlp_encode::{AttributeWriter, Error, ResourceBlob, ResourceInfo, Value};

use super::keep::show;
use crate::convert::profiles::{SCHEMA_URL, VERSION};
use crate::enrich::HIDDEN;
use crate::enrich::cache::{Identity, ProcessKey};
use crate::enrich::host::HostFacts;
use crate::export::config::{AgentResource, SharedAttributes, TELEMETRY_SDK};
use crate::sorted::{SortedMap, SortedSet};

/// Number of a resource: never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(u64);

impl ResourceId {
    /// Numbers count up.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The machine.
    pub const HOST: Self = Self(0);
    /// The agent.
    pub const AGENT: Self = Self(1);
    /// All that cannot be seen from the agent's pid namespace.
    pub const HIDDEN: Self = Self(2);
    /// Processes for whose resources there is no room.
    pub const OTHERS: Self = Self(3);
    const FIXED: u64 = 4;

    /// Whether it is one of processes that can be told apart.
    pub fn is_processes(self) -> bool {
        self.0 >= Self::FIXED
    }
}

/// What becomes of a resource's series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its processes live.
    Stays,
    /// None of its processes lives.
    Ends,
    /// Its processes are those of another now, which is told apart by less.
    Becomes(ResourceId),
}

/// What makes processes the same resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Fixed,
    Process(ProcessKey),
    Service { name: Arc<str>, container: Option<Arc<str>>, pod: Option<Arc<str>> },
}

/// The service of [`ResourceId::OTHERS`].
const OTHERS: &str = "other-services";

/// What may be true of all processes of a resource, by its place.
const COMMON: [&str; 4] =
    ["process.executable.name", "process.executable.path", "process.owner", "process.linux.cgroup"];

type Common = [Option<Arc<str>>; COMMON.len()];

#[derive(Debug)]
struct Entry {
    group: Group,
    common: Common,
    /// What differs, as bits.
    differs: u8,
    /// Number and parent's number, of a single process.
    pids: Option<(u32, u32)>,
    service: Arc<str>,
    /// Living processes.
    members: u32,
    /// Records that wait to be exported.
    pending: u32,
    blob: Option<ResourceBlob>,
}

/// All resources.
#[derive(Debug)]
pub(crate) struct Resources {
    per_process: bool,
    max: usize,
    /// What all have.
    shared: Vec<(String, String)>,
    /// What the agent has.
    agent: Vec<(String, String)>,
    entries: SortedMap<ResourceId, Entry>,
    next: u64,
    by_group: SortedMap<Group, ResourceId>,
    of_process: SortedMap<ProcessKey, ResourceId>,
    /// Processes that became part of [`ResourceId::OTHERS`].
    folded: u64,
    /// The last of them, so that none is counted twice, whether it lives or not.
    last_folded: SortedSet<ProcessKey>,
}

/// Memory of a resource, without what is encoded.
pub(crate) const PER_RESOURCE: usize = 1024;

impl Resources {
    pub(crate) fn new(
        per_process: bool,
        max: usize,
        agent: &AgentResource,
        own: &[(&'static str, String)],
        facts: &HostFacts,
    ) -> Result<Self, Error> {
        let shared = agent.shared().clone().with_host(facts);
        let mut agent_attributes: Vec<(&str, Value<'_>)> =
            agent.attributes().map(|(key, value)| (key, value.into())).collect();
        let more = own.iter().map(|(key, value)| (*key, value.as_str()));
        let more = more.chain([("service.version", VERSION)]).chain(shared.iter());
        let more = more.map(|(key, value)| (key, value.into()));
        for (key, value) in more.chain([("process.pid", std::process::id().into())]) {
            if !agent_attributes.iter().any(|(own, _)| *own == key) {
                agent_attributes.push((key, value));
            }
        }
        let shared: Vec<_> = shared.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let blobs = [
            encode(&shared, &[], None)?,
            ResourceBlob::new(&agent_attributes.as_slice(), &info())?,
            encode(&shared, &[("service.name", HIDDEN)], None)?,
            encode(&shared, &[("service.name", OTHERS)], None)?,
        ];
        let entry = |blob| {
            let (common, service) = (Common::default(), Arc::from(""));
            let blob = Some(blob);
            Entry {
                group: Group::Fixed,
                common,
                differs: 0,
                pids: None,
                service,
                members: 0,
                pending: 0,
                blob,
            }
        };
        let agent = agent_attributes.iter().map(|(key, value)| ((*key).to_owned(), show(*value))).collect();
        Ok(Self {
            per_process,
            max,
            shared,
            agent,
            entries: (0..).map(ResourceId).zip(blobs.map(entry)).collect(),
            next: ResourceId::FIXED,
            by_group: SortedMap::new(),
            of_process: SortedMap::new(),
            folded: 0,
            last_folded: SortedSet::new(),
        })
    }

    /// The resource of a process. While that lives, it is a member.
    pub(crate) fn join(&mut self, key: ProcessKey, identity: &Identity, is_alive: bool) -> ResourceId {
        if let Some(id) = self.of_process.get(&key) {
            return *id;
        }
        let common = common(identity, self.per_process);
        let group = if self.per_process {
            Group::Process(key)
        } else {
            Group::Service {
                name: identity.service().into(),
                container: identity.process.container_id.clone(),
                pod: identity.process.pod_uid.clone(),
            }
        };
        let id = match self.by_group.get(&group).copied() {
            Some(id) => self.meet(id, common),
            // It stays there, so that its series do not end when there is room again.
            None if self.entries.len() >= self.max => {
                self.count_folded(key);
                ResourceId::OTHERS
            }
            None => {
                let service = Arc::from(identity.service());
                let pids = self.per_process.then_some((identity.process.pid, identity.process.parent_pid));
                self.insert(Entry {
                    group,
                    common,
                    differs: 0,
                    pids,
                    service,
                    members: 0,
                    pending: 0,
                    blob: None,
                })
            }
        };
        if is_alive {
            self.of_process.insert(key, id);
            self.change(id, |entry| entry.members += 1);
        }
        id
    }

    fn count_folded(&mut self, key: ProcessKey) {
        self.folded += u64::from(self.last_folded.insert(key));
        if self.last_folded.len() > self.max {
            self.last_folded.pop_first();
        }
    }

    /// The resource with what a further process has in common with all others; another one, if that is less.
    fn meet(&mut self, id: ResourceId, other: Common) -> ResourceId {
        let Some(entry) = self.get_mut(id) else { return id };
        let mut differs = entry.differs;
        let mut common = entry.common.clone();
        for (at, (own, other)) in common.iter_mut().zip(other).enumerate() {
            let bit = 1 << at;
            // What is not known of one of them says nothing.
            if differs & bit == 0 && other.is_some() && *own != other {
                if own.is_some() {
                    differs |= bit;
                    *own = None;
                } else {
                    *own = other;
                }
            }
        }
        if common == entry.common {
            return id;
        }
        let members = std::mem::take(&mut entry.members);
        let (group, service) = (entry.group.clone(), Arc::clone(&entry.service));
        let successor = self.insert(Entry {
            group,
            common,
            differs,
            pids: None,
            service,
            members,
            pending: 0,
            blob: None,
        });
        self.of_process.values_mut().filter(|own| **own == id).for_each(|own| *own = successor);
        successor
    }

    fn insert(&mut self, entry: Entry) -> ResourceId {
        let id = ResourceId(self.next);
        self.next += 1;
        self.by_group.insert(entry.group.clone(), id);
        self.entries.insert(id, entry);
        id
    }

    fn get_mut(&mut self, id: ResourceId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    fn change(&mut self, id: ResourceId, change: impl FnOnce(&mut Entry)) {
        self.get_mut(id).map(change);
    }

    /// A process has ended.
    pub(crate) fn leave(&mut self, key: ProcessKey) {
        if let Some(id) = self.of_process.remove(&key) {
            self.change(id, |entry| entry.members = entry.members.saturating_sub(1));
        }
    }

    /// A record waits that is its own.
    pub(crate) fn hold(&mut self, id: ResourceId) {
        self.change(id, |entry| entry.pending += 1);
    }

    /// A record does not wait any more.
    pub(crate) fn release(&mut self, id: ResourceId) {
        self.change(id, |entry| entry.pending = entry.pending.saturating_sub(1));
    }

    /// What becomes of its series at the end of a window.
    pub(crate) fn fate(&self, id: ResourceId) -> Fate {
        if !id.is_processes() || self.has_members(id) {
            return Fate::Stays;
        }
        let heir = self.entries.get(&id).and_then(|entry| self.by_group.get(&entry.group).copied());
        heir.filter(|heir| self.has_members(*heir)).map_or(Fate::Ends, Fate::Becomes)
    }

    fn has_members(&self, id: ResourceId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.members > 0)
    }

    /// Encodes those that are new.
    pub(crate) fn encode_new(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.blob.is_none()) {
            // Keys are constants that differ: nothing can be wrong with them.
            entry.blob = encode(&self.shared, &entry.texts(), entry.pids).ok();
        }
    }

    /// `job` and `instance` of a resource, as Prometheus calls service and instance. The machine and the agent have none:
    /// they are who is asked.
    pub(crate) fn labels(&self, id: ResourceId) -> Vec<(&'static str, String)> {
        let fixed = |job: &str| vec![("job", job.to_owned())];
        let Some(entry) = self.entries.get(&id) else { return Vec::new() };
        let instance = match (&entry.group, entry.pids) {
            (Group::Fixed, _) if id == ResourceId::HIDDEN => return fixed(HIDDEN),
            (Group::Fixed, _) if id == ResourceId::OTHERS => return fixed(OTHERS),
            (Group::Fixed, _) => return Vec::new(),
            (_, Some((pid, _))) => Some(pid.to_string()),
            // Containers of a pod have names of their own.
            (Group::Service { container, pod, .. }, None) => {
                container.as_deref().or(pod.as_deref()).map(str::to_owned)
            }
            (Group::Process(_), None) => None,
        };
        let mut labels = fixed(&entry.service);
        labels.extend(instance.map(|instance| ("instance", instance)));
        labels
    }

    /// What is known of a resource beside its [`labels`](Self::labels), for those that have their own to tell.
    pub(crate) fn facts(&self, id: ResourceId) -> Vec<(&str, String)> {
        if id == ResourceId::AGENT {
            return self.agent.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        }
        let Some(entry) = self.entries.get(&id) else { return Vec::new() };
        let texts = entry.texts().into_iter().skip(1).map(|(key, value)| (key, value.to_owned()));
        let numbers = |(pid, parent): (u32, u32)| [("process.pid", pid), ("process.parent_pid", parent)];
        let numbers = entry.pids.into_iter().flat_map(numbers).map(|(key, n)| (key, n.to_string()));
        texts.chain(numbers).collect()
    }

    /// The resource as it is sent, once it is [encoded](Self::encode_new).
    pub(crate) fn encoded(&self, id: ResourceId) -> Option<&ResourceBlob> {
        self.entries.get(&id)?.blob.as_ref()
    }

    /// Forgets those that have ended, once their series are.
    pub(crate) fn forget_ended(&mut self) {
        let by_group = &mut self.by_group;
        self.entries.retain(|id, entry| {
            let stays = !id.is_processes() || entry.members > 0 || entry.pending > 0;
            if !stays && by_group.get(&entry.group) == Some(id) {
                by_group.remove(&entry.group);
            }
            stays
        });
    }

    /// Processes for whose resources there was no room.
    pub(crate) fn folded(&self) -> u64 {
        self.folded
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// What it has beside what all have, and numbers; its name first.
    fn texts(&self) -> Vec<(&'static str, &str)> {
        let mut texts: Vec<(&str, &str)> = vec![("service.name", &self.service)];
        let own = COMMON.iter().zip(&self.common);
        texts.extend(own.filter_map(|(key, value)| Some((*key, value.as_deref()?))));
        if let Group::Service { container, pod, .. } = &self.group {
            let known = [("container.id", container), ("k8s.pod.uid", pod)];
            texts.extend(known.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
        }
        texts
    }
}

fn common(identity: &Identity, per_process: bool) -> Common {
    let cgroup = if per_process { identity.cgroup.as_deref() } else { identity.unit() };
    let executable =
        identity.executable_name.clone().or_else(|| identity.process.comm.clone().filter(|_| per_process));
    [executable, identity.process.executable_path.clone(), identity.owner.clone(), cgroup.map(Into::into)]
}

fn info() -> ResourceInfo<'static> {
    ResourceInfo { schema_url: SCHEMA_URL, ..ResourceInfo::default() }
}

fn encode(
    shared: &[(String, String)],
    texts: &[(&str, &str)],
    pids: Option<(u32, u32)>,
) -> Result<ResourceBlob, Error> {
    // What is added later stands in front.
    let attributes = |to: &mut AttributeWriter<'_>| {
        for (key, value) in shared.iter().rev() {
            to.add(key, value.as_str());
        }
        for (key, value) in TELEMETRY_SDK.iter().rev() {
            to.add(key, *value);
        }
        if let Some((pid, parent)) = pids {
            if parent > 0 {
                to.add("process.parent_pid", parent);
            }
            to.add("process.pid", pid);
        }
        for (key, value) in texts.iter().rev() {
            to.add(key, *value);
        }
    };
    ResourceBlob::new(&attributes, &info())
}

/// What every observed process is marked with too.
pub(crate) fn shared(agent: &AgentResource, facts: &HostFacts) -> SharedAttributes {
    agent.shared().clone().with_host(facts)
}
