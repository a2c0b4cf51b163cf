//! The agent's own keys.

use std::path::PathBuf;
use std::time::Duration;

use super::{AgentConfig, Privileges, TracerConfig};
use crate::agent::budget::LEAST_TOTAL;
use crate::config::MAX_PIDS;
use crate::key::{Key, Value, unknown};

const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Below this, no tracer has room for what it must have.
const BUDGETS: std::ops::RangeInclusive<u64> = LEAST_TOTAL..=64 << 30;

fn path(value: &Value) -> Result<Option<PathBuf>, String> {
    value.optional(|value| value.text().map(PathBuf::from))
}

fn of_path(path: &Option<PathBuf>) -> Value {
    Value::Text(path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
}

pub(super) static AGENT: &[Key<AgentConfig>] = &Key::<AgentConfig>::table([
    Key {
        name: "interval",
        doc: "How long a window is, 1s to 1h; empty: 5s where it is shown, where it is exported\n\
              OTEL_METRIC_EXPORT_INTERVAL or 60s.",
        get: |c| Value::of_optional(c.agent.interval, Value::of_duration),
        set: |c, v| v.optional(|v| v.duration(INTERVALS)).map(|interval| c.agent.interval = interval),
    },
    Key {
        name: "memory_budget",
        doc: "Memory for everything, 4M or more: what the process has resident, BPF maps and rings; empty: 32M, or an\n\
              eighth of the machine's memory where that is less.",
        get: |c| Value::of_optional(c.agent.memory_budget, Value::of_size),
        set: |c, v| v.optional(|v| v.size(BUDGETS)).map(|budget| c.agent.memory_budget = budget),
    },
    Key {
        name: "cpu_limit",
        doc: "Percent of one core that the agent may take together with what its hooks cost other processes,\n\
              up to 100; 0: no limit. Above it, less is sampled, and then tracers are attached part of the time.",
        get: |c| Value::Float(c.agent.cpu_limit),
        set: |c, v| v.number(0.0..=100.0).map(|limit| c.agent.cpu_limit = limit),
    },
    Key {
        name: "listen",
        doc: "Address and port for /healthz, /readyz and /metrics, as \"127.0.0.1:9464\"; empty: none.\n\
              Whoever reaches it may read it.",
        get: |c| Value::of_optional(c.agent.listen, |address| Value::Text(address.to_string())),
        set: |c, v| {
            let parse = |v: &Value| {
                let text = v.text()?;
                text.parse().map_err(|_| format!("{text} is not an address with a port, as 127.0.0.1:9464"))
            };
            let listen = v.optional(parse)?;
            if listen.is_some() && !cfg!(feature = "listen") {
                return Err("this build has no such port (feature `listen`)".to_owned());
            }
            c.agent.listen = listen;
            Ok(())
        },
    },
    Key {
        name: "privileges",
        doc: "What becomes of privileges that only the start needs: \"drop\" or \"keep\". Once everything is attached,\n\
              \"drop\" keeps what tracing goes on to need; CAP_SYS_ADMIN only where nothing less serves.",
        get: |c| Value::Text(if c.agent.privileges == Privileges::Drop { "drop" } else { "keep" }.to_owned()),
        set: |c, v| {
            c.agent.privileges = match v.text()? {
                "drop" if cfg!(feature = "service") => Privileges::Drop,
                "drop" => return Err("this build gives none up (feature `service`)".to_owned()),
                "keep" => Privileges::Keep,
                other => return Err(unknown("way", other, ["drop", "keep"])),
            };
            Ok(())
        },
    },
    Key {
        name: "btf",
        doc: "The kernel's types, for kernels that carry none: BTF, or an ELF file with it, or a folder with files\n\
              RELEASE.btf or BUILDID.btf; empty: if the kernel has none, such a file in /etc/ebpf-otlp/btf or\n\
              /usr/lib/ebpf-otlp/btf.",
        get: |c| of_path(&c.agent.btf),
        set: |c, v| path(v).map(|btf| c.agent.btf = btf),
    },
]);

pub(super) static FILTER: &[Key<AgentConfig>] = &Key::<AgentConfig>::table([
    Key {
        name: "pids",
        doc: "Only these processes, with all their threads.",
        get: |c| Value::List(c.filter.pids.iter().map(|pid| Value::Int(i64::from(*pid))).collect()),
        set: |c, v| {
            let entries = v.entries();
            if entries.len() > MAX_PIDS {
                return Err(format!(
                    "{} processes are out of range: there may be 0 to {MAX_PIDS}",
                    entries.len()
                ));
            }
            let pids: Result<Vec<u32>, String> = entries.iter().map(|pid| pid.whole(1..=u32::MAX)).collect();
            let mut pids = pids?;
            pids.sort_unstable();
            pids.dedup();
            c.filter.pids = pids;
            Ok(())
        },
    },
    Key {
        name: "children",
        doc: "With pids: also the processes that they start.",
        get: |c| Value::Bool(c.filter.children),
        set: |c, v| v.boolean().map(|children| c.filter.children = children),
    },
    Key {
        name: "comm",
        doc: "Only threads or processes of that name; empty: all.",
        get: |c| Value::Text(c.filter.comm.clone().unwrap_or_default()),
        set: |c, v| v.optional(|v| v.text().map(str::to_owned)).map(|comm| c.filter.comm = comm),
    },
    Key {
        name: "cgroup",
        doc: "Only tasks in that cgroup (v2 or v1 directory) and below; empty: all.",
        get: |c| of_path(&c.filter.cgroup),
        set: |c, v| path(v).map(|cgroup| c.filter.cgroup = cgroup),
    },
]);

pub(super) static EXPORT: &[Key<AgentConfig>] = &Key::<AgentConfig>::table([
    Key {
        name: "endpoints",
        doc: "Receivers, as \"http://localhost:4318\" or \"file:///folder\".",
        get: |c| Value::of_texts(&c.export.endpoints),
        set: |c, v| v.texts().map(|endpoints| c.export.endpoints = endpoints),
    },
    Key {
        name: "output",
        doc: "A file of OTLP JSON lines, .jsonl, or of binary requests for each signal, .otlp; empty: none.",
        get: |c| of_path(&c.export.output),
        set: |c, v| {
            let output = path(v)?;
            let is_known = |path: &PathBuf| path.extension().is_some_and(|e| e == "jsonl" || e == "otlp");
            if let Some(path) = output.as_ref().filter(|path| !is_known(path)) {
                return Err(format!(
                    "{} does not end in .jsonl or .otlp, which is what run can write",
                    path.display()
                ));
            }
            if output.as_ref().is_some_and(|path| path.extension().is_some_and(|e| e == "jsonl"))
                && !cfg!(feature = "json")
            {
                return Err("this build writes no JSON lines (feature `json`); use .otlp".to_owned());
            }
            c.export.output = output;
            Ok(())
        },
    },
    Key {
        name: "spool",
        doc: "Directory for what receivers do not take yet; empty: it is in memory alone.",
        get: |c| of_path(&c.export.spool),
        set: |c, v| {
            let spool = path(v)?;
            if spool.is_some() && !cfg!(feature = "spool") {
                return Err("this build has no queue on disk (feature `spool`)".to_owned());
            }
            c.export.spool = spool;
            Ok(())
        },
    },
    Key {
        name: "spool_size",
        doc: "Bytes on disk for each receiver, 1M or more; empty: 256M.",
        get: |c| Value::of_optional(c.export.spool_size, Value::of_size),
        set: |c, v| v.optional(|v| v.size(1 << 20..=1 << 50)).map(|size| c.export.spool_size = size),
    },
    Key {
        name: "spool_delay",
        doc: "What is not delivered after this is written to the spool, 1ms to 1h; empty: 1s.",
        get: |c| Value::of_optional(c.export.spool_delay, Value::of_duration),
        set: |c, v| {
            let range = Duration::from_millis(1)..=Duration::from_secs(3600);
            v.optional(|v| v.duration(range)).map(|delay| c.export.spool_delay = delay)
        },
    },
    Key {
        name: "per_process",
        doc: "Each process is a resource of its own, not each service or container. Always so with pids.",
        get: |c| Value::Bool(c.export.per_process),
        set: |c, v| v.boolean().map(|per_process| c.export.per_process = per_process),
    },
]);

#[cfg(feature = "debuginfod")]
pub(super) static SYMBOLS: &[Key<AgentConfig>] = &Key::<AgentConfig>::table([
    Key {
        name: "debuginfod",
        doc: "Servers that are asked for files for debuggers which are not on this host, as \"https://debuginfod.example\";\n\
              \"env\": those of DEBUGINFOD_URLS. They are told build ids of programs and libraries. Empty: nobody is asked.",
        get: |c| Value::of_texts(&c.symbols.debuginfod),
        set: |c, v| v.texts().map(|servers| c.symbols.debuginfod = servers),
    },
    Key {
        name: "debuginfod_cache",
        doc: "Folder for what they send; empty: debuginfod in the one that the service manager gives (CACHE_DIRECTORY), or\n\
              /var/cache/ebpf-otlp/debuginfod, or, for others than root, ebpf-otlp/debuginfod in XDG_CACHE_HOME or ~/.cache.",
        get: |c| of_path(&c.symbols.debuginfod_cache),
        set: |c, v| path(v).map(|folder| c.symbols.debuginfod_cache = folder),
    },
    Key {
        name: "debuginfod_cache_size",
        doc: "Bytes that the folder may take, 16M or more; empty: 1G. A file may have half of them.",
        get: |c| Value::of_optional(c.symbols.debuginfod_cache_size, Value::of_size),
        set: |c, v| {
            v.optional(|v| v.size(16 << 20..=1 << 50)).map(|size| c.symbols.debuginfod_cache_size = size)
        },
    },
]);

/// What every tracer has.
pub(super) static TRACER: &[Key<TracerConfig>] = &Key::<TracerConfig>::table([
    Key {
        name: "enabled",
        doc: "Whether it runs.",
        get: |t| Value::Bool(t.enabled),
        set: |t, v| v.boolean().map(|enabled| t.enabled = enabled),
    },
    Key {
        name: "rungs",
        doc: "Rungs of its ladders to use whatever the kernel has better, as { \"LADDER\" = \"RUNG\" };\n\
              \"\" stands for none.",
        get: |t| Value::Map(t.rungs.0.clone()),
        set: |t, v| v.map().map(|rungs| t.rungs.0.clone_from(rungs)),
    },
]);
