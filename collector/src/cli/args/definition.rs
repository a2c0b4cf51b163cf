//! Every command with its options: the one table that parsing, help, the man page and completions are made of.

/// A command.
#[derive(Debug)]
pub struct Definition {
    /// As the user writes it.
    pub name: &'static str,
    /// What it does, in the list of commands.
    pub about: &'static str,
    /// What follows it beside options.
    pub operands: Option<Operands>,
    /// What it does, at length; paragraphs are apart by an empty line.
    pub text: &'static str,
    /// In the order in which help shows them.
    pub options: &'static [&'static Opt],
}

/// Words that are no options.
#[derive(Debug)]
pub struct Operands {
    /// As help shows it.
    pub name: &'static str,
    #[cfg_attr(not(feature = "terminal"), expect(dead_code))]
    pub hint: Hint,
}

/// An option.
#[derive(Debug, PartialEq)]
pub struct Opt {
    /// With its dashes.
    pub name: &'static str,
    /// What stands for its value in help; empty where it takes none.
    pub value: &'static str,
    pub help: &'static str,
    pub hint: Hint,
    pub repeatable: bool,
    /// The key of the configuration that it sets, where it does no more than that.
    pub key: &'static str,
}

/// What a value is, for completions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hint {
    /// Nothing that could be listed.
    Free,
    File,
    Directory,
    Process,
    /// Tracers of the command; of `run`, all.
    Tracer,
    Shell,
}

impl Definition {
    /// Of a command by its name.
    pub fn of(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().copied().find(|command| command.name == name)
    }
}

/// Shells that there are completions for.
#[cfg(feature = "terminal")]
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What help says of options that this build refuses.
const NO_SPOOL: &str = "not in this build (feature `spool`)";
const SWITCH: Opt = Opt { name: "", value: "", help: "", hint: Hint::Free, repeatable: false, key: "" };
const DURATION: Opt = Opt {
    name: "--duration",
    value: "D",
    help: "how long, as 10s, 500ms, 2m, 1h (default: until interrupted)",
    ..SWITCH
};
static UNTIL: Opt = DURATION;
static PID: Opt = Opt {
    name: "--pid",
    value: "N",
    help: "only this process with all its threads",
    hint: Hint::Process,
    repeatable: true,
    key: "filter.pids",
};
static CHILDREN: Opt = Opt {
    name: "--children",
    help: "with --pid: also the processes that they start",
    key: "filter.children",
    ..SWITCH
};
static COMM: Opt = Opt {
    name: "--comm",
    value: "NAME",
    help: "only threads or processes of that name",
    key: "filter.comm",
    ..SWITCH
};
static CGROUP: Opt = Opt {
    name: "--cgroup",
    value: "PATH",
    help: "only tasks in that cgroup and below (v2 or v1 directory)",
    hint: Hint::Directory,
    key: "filter.cgroup",
    ..SWITCH
};
static ENDPOINT: Opt = Opt {
    name: "--endpoint",
    value: "URL",
    help: if cfg!(feature = "json") {
        "send to an OTLP receiver, as http://localhost:4318, or write JSON lines, as file:///folder (or \
         OTEL_EXPORTER_OTLP_ENDPOINT)"
    } else {
        "send to an OTLP receiver, as http://localhost:4318 (or OTEL_EXPORTER_OTLP_ENDPOINT)"
    },
    repeatable: true,
    key: "export.endpoints",
    ..SWITCH
};
static SPOOL: Opt = Opt {
    name: "--spool",
    value: "DIR",
    help: if cfg!(feature = "spool") {
        "keep on disk what a receiver does not take yet, and send it as soon as it does, if need be in the next run"
    } else {
        NO_SPOOL
    },
    hint: Hint::Directory,
    key: "export.spool",
    ..SWITCH
};
static SPOOL_SIZE: Opt = Opt {
    name: "--spool-size",
    value: "SIZE",
    help: if cfg!(feature = "spool") {
        "bytes on disk for each receiver, as 64M or 1G (default 256M)"
    } else {
        NO_SPOOL
    },
    key: "export.spool_size",
    ..SWITCH
};
static SPOOL_DELAY: Opt = Opt {
    name: "--spool-delay",
    value: "D",
    help: if cfg!(feature = "spool") {
        "write what is not delivered after D: what a power cut costs at most, besides the current --interval (default \
           1s)"
    } else {
        NO_SPOOL
    },
    key: "export.spool_delay",
    ..SWITCH
};
const ONLY: Opt = Opt {
    name: "--only",
    value: "NAME,...",
    help: "only these tracers",
    hint: Hint::Tracer,
    repeatable: true,
    ..SWITCH
};
const SET: Opt = Opt {
    name: "--set",
    value: "KEY=VALUE",
    help: "a key of the configuration, as tracer.profile.frequency=49",
    repeatable: true,
    ..SWITCH
};
static MEMORY_BUDGET: Opt = Opt {
    name: "--memory-budget",
    value: "N",
    help: "memory for everything, at least 4M (default 32M, or an eighth of the machine's if that is less)",
    key: "agent.memory_budget",
    ..SWITCH
};
const CPU_LIMIT: Opt = Opt {
    name: "--cpu-limit",
    value: "PERCENT",
    help: "of one core, for the agent and its hooks (default 1; 0: none)",
    key: "agent.cpu_limit",
    ..SWITCH
};
static LISTEN: Opt = Opt {
    name: "--listen",
    value: "ADDRESS",
    help: if cfg!(feature = "listen") {
        "serve /healthz, /readyz and /metrics, as on 127.0.0.1:9464"
    } else {
        "not in this build (feature `listen`)"
    },
    key: "agent.listen",
    ..SWITCH
};
static BTF: Opt = Opt {
    name: "--btf",
    value: "FILE",
    help: "the kernel's types, for kernels that carry none: BTF, an ELF file with it, or a folder of RELEASE.btf and \
           BUILDID.btf",
    hint: Hint::File,
    key: "agent.btf",
    ..SWITCH
};
#[cfg(feature = "debuginfod")]
static DEBUGINFOD: Opt = Opt {
    name: "--debuginfod",
    value: "URL",
    help: "fetch files for debuggers that are not on this host from this server, which is told build ids; env: from those of \
           DEBUGINFOD_URLS",
    repeatable: true,
    key: "symbols.debuginfod",
    ..SWITCH
};
static PER_PROCESS: Opt = Opt {
    name: "--per-process",
    help: "each process is a resource of its own",
    key: "export.per_process",
    ..SWITCH
};
const JSON: Opt = Opt { name: "--json", help: "print JSON, a line each time", ..SWITCH };
const JSON_OBJECT: Opt = Opt { name: "--json", help: "one line of JSON an object", ..SWITCH };

/// Of the commands that show what some tracers find.
static TABLE: [&Opt; 19] = [
    &UNTIL,
    &Opt {
        name: "--interval",
        value: "D",
        help: "show a window this often, instead of all at the end",
        key: "agent.interval",
        ..SWITCH
    },
    &JSON,
    &Opt {
        name: "--output",
        value: "FILE",
        help: "write a file: .jsonl and .otlp as `run` does; of profiles .svg, .html, .folded, .pb.gz",
        hint: Hint::File,
        repeatable: true,
        ..SWITCH
    },
    &PID,
    &CHILDREN,
    &COMM,
    &CGROUP,
    &Opt { help: "only these of the command's tracers", ..ONLY },
    &Opt { help: "a key of the configuration, as tracer.syscalls.calls=read,write", ..SET },
    &ENDPOINT,
    &SPOOL,
    &SPOOL_SIZE,
    &SPOOL_DELAY,
    &MEMORY_BUDGET,
    &Opt { help: "of one core, for the command and its hooks (default 0: none)", ..CPU_LIMIT },
    &LISTEN,
    &BTF,
    &PER_PROCESS,
];

macro_rules! table {
    ($name:literal, $about:literal, $text:literal) => {
        Definition {
            name: $name,
            about: $about,
            operands: None,
            text: concat!(
                $text,
                " Prints tables at the end, or every --interval; with --endpoint, a .jsonl or an .otlp file, exports instead."
            ),
            options: &TABLE,
        }
    };
}

/// Every command, in the order in which help lists them, with the feature that it needs, and whether that is built in.
const DEFINED: [(&Definition, Option<(&str, bool)>); 14] = [
    (
        &Definition {
            name: "run",
            about: "the agent: everything that is enabled, shown or exported, until a signal",
            operands: None,
            text: "The agent: traces with everything that is enabled, and exports what it finds; without a receiver, prints a \
               summary every interval. SIGHUP reads the configuration again, SIGTERM sends what is left and ends.",
            options: &[
                &Opt {
                    name: "--config",
                    value: "FILE",
                    help: if cfg!(feature = "terminal") {
                        "a file of settings, which `ebpf-otlp config --example` explains (or EBPF_OTLP_CONFIG)"
                    } else {
                        "a file of settings (or EBPF_OTLP_CONFIG)"
                    },
                    hint: Hint::File,
                    ..SWITCH
                },
                &SET,
                &UNTIL,
                &Opt {
                    name: "--interval",
                    value: "D",
                    help: "how long a window is (default 5s shown, 60s exported)",
                    key: "agent.interval",
                    ..SWITCH
                },
                &ONLY,
                &ENDPOINT,
                &Opt {
                    name: "--output",
                    value: "FILE",
                    help: if cfg!(feature = "json") {
                        "write .jsonl, OTLP JSON lines, or .otlp, binary requests behind their lengths (unlike that of \
                         `profile`), a file for each signal: FILE.metrics.otlp and so on"
                    } else {
                        "write .otlp, binary requests behind their lengths, a file for each signal: FILE.metrics.otlp and \
                         so on"
                    },
                    hint: Hint::File,
                    key: "export.output",
                    ..SWITCH
                },
                &SPOOL,
                &SPOOL_SIZE,
                &SPOOL_DELAY,
                &MEMORY_BUDGET,
                &CPU_LIMIT,
                &LISTEN,
                &BTF,
                #[cfg(feature = "debuginfod")]
                &DEBUGINFOD,
                &PER_PROCESS,
                &PID,
                &CHILDREN,
                &COMM,
                &CGROUP,
            ],
        },
        None,
    ),
    (
        &Definition {
            name: "profile",
            about: "sample where CPU time goes, kernel and user, by function name",
            operands: None,
            text: "Samples the stacks of all CPUs, or with --off-cpu of threads that wait. Without --output or --endpoint, prints the hottest functions and stacks.",
            options: &[
                &UNTIL,
                &Opt {
                    name: "--frequency",
                    value: "N",
                    help: "samples a second on each CPU, 1 to 1000 (default 99)",
                    ..SWITCH
                },
                &Opt {
                    name: "--stacks",
                    value: "HOW",
                    help: "how to walk stacks of processes: tables (by call frame information, in the kernel), copies (by the same, in user space) or frame-pointers (default: the first that works here)",
                    ..SWITCH
                },
                &Opt {
                    name: "--off-cpu",
                    value: "D",
                    help: "in place of CPU time, the time that threads wait off the CPU, by the stack that they went to sleep with: of waits of so long or longer, as 1ms or 10us",
                    ..SWITCH
                },
                &Opt {
                    name: "--interval",
                    value: "D",
                    help: "with --endpoint: export a profile this often (default 60s)",
                    ..SWITCH
                },
                &PID,
                &CHILDREN,
                &COMM,
                &CGROUP,
                &Opt {
                    name: "--output",
                    value: "FILE",
                    help: "write a file; its ending picks the format: .svg or .html flame graph, .folded stacks, .pb.gz pprof, .otlp a \
                       single OTLP request without a length (unlike that of `run`), .jsonl OTLP JSON",
                    hint: Hint::File,
                    repeatable: true,
                    ..SWITCH
                },
                &ENDPOINT,
                &SPOOL,
                &SPOOL_SIZE,
                &SPOOL_DELAY,
                &BTF,
                #[cfg(feature = "debuginfod")]
                &DEBUGINFOD,
                &Opt {
                    name: "--top",
                    help: "show the hottest functions, of the last second and since the start, redrawn each second",
                    ..SWITCH
                },
                &Opt { help: "print a summary as JSON instead of the table", ..JSON },
            ],
        },
        TERMINAL,
    ),
    (
        &Definition {
            name: "compare",
            about: "show what changed between two profiles, from files",
            operands: Some(Operands { name: "BEFORE AFTER", hint: Hint::File }),
            text: "Shows which functions take a larger or smaller share of the samples than before. Reads .pb.gz (pprof, of any \
               tool), .otlp, .jsonl and .folded; needs no privileges. Without --output, prints a table.",
            options: &[
                &Opt {
                    name: "--output",
                    value: "FILE",
                    help: "write a file: .svg or .html differential flame graph, .folded stacks with both counts",
                    hint: Hint::File,
                    repeatable: true,
                    ..SWITCH
                },
                &Opt {
                    name: "--sample-type",
                    value: "NAME",
                    help: "of files with several values for a sample, as inuse_space (default: CPU time)",
                    ..SWITCH
                },
                &Opt { name: "--top", value: "N", help: "functions shown (default 30)", ..SWITCH },
                &Opt { help: "print both shares of each function as JSON", ..JSON },
            ],
        },
        Some(("compare", cfg!(feature = "compare"))),
    ),
    (
        &table!(
            "network",
            "TCP connections, UDP traffic and DNS lookups, by process",
            "Shows TCP connections, UDP traffic and DNS lookups, by process."
        ),
        TERMINAL,
    ),
    (
        &table!(
            "syscalls",
            "system calls, their errors and latencies, by process",
            "Shows system calls, their errors and how long they take, by process."
        ),
        TERMINAL,
    ),
    (
        &table!(
            "memory",
            "page faults, mappings, reclaim, OOM kills, a process' heap",
            "Shows page faults, mappings, stalls in reclaim and OOM kills, by process; with --pid also the heap."
        ),
        TERMINAL,
    ),
    (
        &table!(
            "sched",
            "who waits for a CPU, and how long",
            "Shows how long threads wait for a CPU, by process."
        ),
        TERMINAL,
    ),
    (
        &table!(
            "disk",
            "block requests and how long they take",
            "Shows block requests, how long they take and their bytes, by device."
        ),
        TERMINAL,
    ),
    (
        &Definition {
            name: "check",
            about: "what this kernel and user allow, and what to do about what is missing",
            operands: None,
            text: "Says what this kernel, its BTF and this user's capabilities allow, and what to do about what is missing. \
               Exits 0 if `profile` can run, 1 if not.",
            options: &[
                &BTF,
                &Opt {
                    help: if cfg!(feature = "json") {
                        "print JSON"
                    } else {
                        "not in this build (feature `json`)"
                    },
                    ..JSON
                },
            ],
        },
        None,
    ),
    (
        &Definition {
            name: "load",
            about: "load BPF objects with the project's own loader",
            operands: Some(Operands { name: "OBJECT...", hint: Hint::File }),
            text: "Loads every program and map of each object into the kernel, and lets go of them again.",
            options: &[
                &Opt {
                    name: "--per-program",
                    help: "load each program alone, so that one failure does not hide another",
                    ..SWITCH
                },
                &Opt {
                    name: "--attach",
                    help: "attach each program where its section says, and each struct_ops map, until interrupted",
                    ..SWITCH
                },
                &Opt { help: "with --attach: how long, as 10s, 500ms, 2m", ..DURATION },
                &Opt {
                    name: "--pin",
                    value: "DIR",
                    help: "pin maps, programs and links in a BPF file system, as DIR/maps/NAME, DIR/programs/NAME, \
                       DIR/links/NAME, where they stay; maps declared as pinned are reused if they are there",
                    hint: Hint::Directory,
                    ..SWITCH
                },
                &Opt {
                    name: "--btf",
                    value: "FILE",
                    help: "the kernel's types, for kernels that carry none: BTF, or an ELF file with it",
                    hint: Hint::File,
                    ..SWITCH
                },
                &JSON_OBJECT,
            ],
        },
        Some(("load", cfg!(feature = "load"))),
    ),
    (
        &Definition {
            name: "inspect",
            about: "show what is in a BPF object, without privileges",
            operands: Some(Operands { name: "OBJECT...", hint: Hint::File }),
            text: "Shows the programs of each object with the maps, functions and kernel types that they use, its maps and its \
               BTF. Asks no kernel and needs no privileges. Exits 1 if a part of an object makes no sense.",
            options: &[&Opt { help: "one line of JSON an object, with every relocation", ..JSON_OBJECT }],
        },
        Some(("inspect", cfg!(feature = "inspect"))),
    ),
    (
        &Definition {
            name: "btf",
            about: "make the kernel's types (BTF) for kernels that carry none",
            operands: Some(Operands { name: "generate VMLINUX | minimize [OBJECT...]", hint: Hint::File }),
            text: "`generate` makes BTF from the debug information of a kernel's vmlinux, for a kernel that was built without it. \
               `minimize` keeps of BTF what the relocations of BPF objects need, or of this program's own without any: some KB \
               that firmware can carry. Other commands take the file by --btf.",
            options: &[
                &Opt {
                    name: "--btf",
                    value: "FILE",
                    help: "minimize: the kernel's types, BTF or an ELF file with it (default: the running kernel's)",
                    hint: Hint::File,
                    ..SWITCH
                },
                &Opt {
                    name: "--output",
                    value: "FILE",
                    help: "the file to write",
                    hint: Hint::File,
                    ..SWITCH
                },
            ],
        },
        Some(("btf-generate", cfg!(feature = "btf-generate"))),
    ),
    (
        &Definition {
            name: "config",
            about: "print a configuration file for `run` with every key and its default",
            operands: None,
            text: "Prints a configuration file for `run --config`: every key, commented out, with its default and what it does.",
            options: &[&Opt { name: "--example", help: "print it", ..SWITCH }],
        },
        TERMINAL,
    ),
    (
        &Definition {
            name: "completions",
            about: "print completions for a shell",
            operands: Some(Operands { name: "SHELL", hint: Hint::Shell }),
            text: "Prints a script that completes commands, options and their values in bash, zsh or fish. For this shell \
               alone: source <(ebpf-otlp completions bash). For all, save it as ebpf-otlp in \
               /usr/share/bash-completion/completions, as _ebpf-otlp in a folder of zsh's $fpath, or as ebpf-otlp.fish in \
               ~/.config/fish/completions.",
            options: &[],
        },
        TERMINAL,
    ),
];

const TERMINAL: Option<(&str, bool)> = Some(("terminal", cfg!(feature = "terminal")));

const BUILT_IN: usize = {
    let (mut count, mut i) = (0, 0);
    while i < DEFINED.len() {
        count += is_built_in(i) as usize;
        i += 1;
    }
    count
};

const fn is_built_in(i: usize) -> bool {
    !matches!(DEFINED[i].1, Some((_, false)))
}

/// The commands of this build: the texts of others are not in it.
pub static COMMANDS: [&Definition; BUILT_IN] = {
    let (mut commands, mut count, mut i) = ([DEFINED[0].0; BUILT_IN], 0, 0);
    while i < DEFINED.len() {
        if is_built_in(i) {
            commands[count] = DEFINED[i].0;
            count += 1;
        }
        i += 1;
    }
    commands
};

/// The commands that this build lacks, with the feature of each.
pub static LACKING: [(&str, &str); DEFINED.len() - BUILT_IN] = {
    let (mut commands, mut count, mut i) = ([("", ""); DEFINED.len() - BUILT_IN], 0, 0);
    while i < DEFINED.len() {
        if let (command, Some((feature, false))) = DEFINED[i] {
            commands[count] = (command.name, feature);
            count += 1;
        }
        i += 1;
    }
    commands
};
