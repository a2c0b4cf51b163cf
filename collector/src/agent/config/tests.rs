use super::*;

fn file(text: &str) -> Result<AgentConfig, String> {
    AgentConfig::resolve(Some(("a.toml", text)), [], &[]).map_err(|problem| problem.to_string())
}

fn flag(name: &'static str, key: &str, text: &str) -> Flag {
    Flag { name, key: key.to_owned(), text: text.to_owned() }
}

#[test]
fn the_example_says_what_the_defaults_are() {
    let example = example();
    assert_eq!(file(&example).unwrap(), AgentConfig::default(), "all commented");
    let keys: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut config = file(&keys).unwrap();
    assert!(config.tracers.values().all(|tracer| tracer.asked == tracer.enabled));
    config.tracers.values_mut().for_each(|tracer| tracer.asked = false);
    assert_eq!(config, AgentConfig::default(), "{keys}");
    let count = keys.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()).count();
    assert_eq!(count, paths().len(), "every key");
}

#[test]
fn every_key_is_documented_once() {
    let docs = SECTIONS.iter().flat_map(|(_, keys)| keys.iter().map(|key| (key.name, key.doc)));
    let docs = docs.chain(keys::TRACER.iter().map(|key| (key.name, key.doc)));
    let docs = docs.chain(TRACERS.iter().flat_map(|info| info.keys.iter().map(|key| (key.name, key.doc))));
    for (name, doc) in docs {
        assert!(doc.ends_with('.') && doc.len() > 10, "{name}: {doc:?}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
    }
    let mut variables: Vec<_> = paths().iter().map(|(section, key)| variable(section, key)).collect();
    let all = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), all, "no two keys have the same variable");
}

/// A setting without a key cannot be set; Debug names the fields.
#[test]
fn every_setting_of_a_tracer_has_a_key() {
    let shown = format!("{:#?}", Settings::default());
    let fields = shown.lines().filter(|line| line.starts_with("        ") && !line.starts_with("         "));
    for field in fields.filter_map(|line| line.trim().split_once(':')) {
        let has = TRACERS.iter().any(|info| info.keys.iter().any(|key| key.name == field.0));
        assert!(has, "{} has no key: {shown}", field.0);
    }
}

#[test]
fn later_layers_are_stronger() {
    let text = "[agent]\ninterval = \"7s\"\nmemory_budget = \"16M\"\ncpu_limit = 2\n[tracer.profile]\nfrequency = 49";
    let variables = [
        ("EBPF_OTLP_MEMORY_BUDGET", "8M"),
        ("EBPF_OTLP_CPU_LIMIT", "3.5"),
        ("EBPF_OTLP_FILTER_PIDS", "3, 1,3"),
        ("EBPF_OTLP_LISTEN", ""),
        ("EBPF_OTLP_CONFIG", "a.toml"),
        ("OTHER", "x"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = [flag("--cpu-limit", "agent.cpu_limit", "4")];
    let config = AgentConfig::resolve(Some(("a.toml", text)), variables, &flags).unwrap();
    assert_eq!(config.agent.interval, Some(Duration::from_secs(7)));
    assert_eq!((config.agent.memory_budget, config.agent.cpu_limit), (Some(8 << 20), 4.0));
    assert_eq!(config.filter.pids, [1, 3]);
    assert_eq!(config.settings.profile.frequency, 49);
}

#[test]
#[cfg(feature = "debuginfod")]
fn servers_are_asked_only_where_the_configuration_says_so() {
    assert_eq!(AgentConfig::default().symbols, SymbolSettings::default());
    let text = "[symbols]\ndebuginfod = [\"https://a\", \"env\"]\ndebuginfod_cache_size = \"64M\"";
    let symbols = file(text).unwrap().symbols;
    assert_eq!(symbols.debuginfod, ["https://a", "env"]);
    assert_eq!((symbols.debuginfod_cache, symbols.debuginfod_cache_size), (None, Some(64 << 20)));
    let flags = [flag("--debuginfod", "symbols.debuginfod", "http://b,http://c")];
    let config = AgentConfig::resolve(Some(("a.toml", text)), [], &flags).unwrap();
    assert_eq!(config.symbols.debuginfod, ["http://b", "http://c"]);
    assert!(file("[symbols]\ndebuginfod_cache_size = \"1M\"").unwrap_err().contains("must be 16M to"));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, said) in [
        (
            "[agent]\nintervall = \"5s\"",
            "a.toml:2: [agent]: there is no key \"intervall\": did you mean \"interval\"?",
        ),
        ("\n[agnet]\n", "a.toml:2: there is no table \"agnet\": did you mean \"agent\"?"),
        ("interval = 5", "a.toml:1: there is no table \"interval\": there are agent, filter, export, "),
        ("agent = 5", "a.toml:1: agent is a table: write [agent]"),
        ("[tracer.profil]", "a.toml:1: there is no tracer \"profil\": did you mean \"profile\"?"),
        ("[tracer]\nprofile = 3", "a.toml:2: profile is a table: write [tracer.profile]"),
        ("[agent]\ninterval = \"0.5s\"", "a.toml:2: [agent]: interval: 0.5s is not a duration"),
        ("[agent]\ninterval = \"2h\"", "interval: \"2h\" is out of range: it must be 1s to 1h"),
        ("[agent]\nmemory_budget = \"3M\"", "must be 4M to"),
        ("[agent]\ncpu_limit = 101", "must be 0 to 100"),
        ("[agent]\nlisten = \"localhost\"", "localhost is not an address with a port"),
        ("[agent]\nprivileges = \"kept\"", "there is no way \"kept\": there are drop, keep"),
        (
            "[tracer.profile]\nfrequency = 0",
            "a.toml:2: [tracer.profile]: frequency: 0 is out of range: it must be 1 to 1000",
        ),
        ("[tracer.profile]\nenabled = 1", "1 is not true or false"),
        ("[tracer.profile]\nrungs = { \"CPU sample\" = \"x\" }", "did you mean \"CPU samples\"?"),
        ("[tracer.profile]\nrungs = { \"CPU samples\" = \"cpu_clock\" }", "did you mean \"cpu-clock\"?"),
        ("[filter]\npids = [0]", "must be 1 to 4294967295"),
        ("[filter]\nchildren = true", "[filter]: children can only be followed"),
        ("[export]\nspool_size = \"64M\"", "need a spool"),
        ("[export]\noutput = \"x.svg\"", "does not end in .jsonl"),
        ("[agent]\ninterval = 1979-05-27", "no key takes a date"),
        ("[agent]\ninterval = [[[[[1]]]]]", "nested so deep"),
        ("[agent]\n= 3", "a.toml:2: "),
        ("[filter]\npids = [99999999999999999999]", "out of range"),
    ] {
        let error = file(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
    let variable = [("EBPF_OTLP_INTERVALL".to_owned(), "5s".to_owned())];
    let error = AgentConfig::resolve(None, variable, &[]).unwrap_err().to_string();
    assert!(
        error.starts_with("EBPF_OTLP_INTERVALL: ") && error.contains("\"EBPF_OTLP_INTERVAL\""),
        "{error}"
    );
    let error = AgentConfig::resolve(None, [], &[flag("--interval", "agent.interval", "x")]).unwrap_err();
    assert_eq!(error.place, "--interval");
}

#[test]
fn only_some_tracers_can_be_asked_for() {
    let mut config = AgentConfig::default();
    config.enable_only(&["profile".to_owned()]).unwrap();
    assert_eq!(config.enabled().map(|(info, _)| info.name).collect::<Vec<_>>(), ["profile"]);
    // The heap has the same command, and is not meant.
    config.enable_only(&["memory".to_owned()]).unwrap();
    assert_eq!(config.enabled().map(|(info, _)| info.name).collect::<Vec<_>>(), ["memory"]);
    assert!(config.enable_only(&["profil".to_owned()]).unwrap_err().what.contains("did you mean"));
    config.enable_only(&[]).unwrap();
    assert!(config.validate().is_err());
}

#[test]
#[cfg(feature = "unwind")]
fn waits_are_profiled_where_that_is_asked_for() {
    let minimum = |config: &AgentConfig| config.settings.off_cpu.minimum;
    let default = AgentConfig::default();
    assert!(!default.tracers.get("off_cpu").unwrap().enabled);
    assert_eq!(minimum(&default), Duration::from_millis(1));
    let text =
        "[tracer.off_cpu]\nenabled = true\nminimum = \"10us\"\nrungs = { \"user stacks\" = \"copies\" }";
    let config = file(text).unwrap();
    let tracer = config.tracers.get("off_cpu").unwrap();
    assert!(tracer.enabled && tracer.asked && tracer.rungs.0.get("user stacks").unwrap() == "copies");
    assert_eq!(minimum(&config), Duration::from_micros(10));
    let variables = [("ENABLED", "true"), ("MINIMUM", "20ms")]
        .map(|(key, value)| (format!("EBPF_OTLP_TRACER_OFF_CPU_{key}"), value.to_owned()));
    let set = [flag("--set", "tracer.off_cpu.minimum", "2s")];
    let config = AgentConfig::resolve(None, variables.clone(), &set).unwrap();
    assert_eq!(
        (config.tracers.get("off_cpu").unwrap().enabled, minimum(&config)),
        (true, Duration::from_secs(2))
    );
    let config = AgentConfig::resolve(None, variables, &[]).unwrap();
    assert_eq!(minimum(&config), Duration::from_millis(20));
    for (value, said) in
        [("\"0s\"", "0s is not a duration"), ("\"2h\"", "must be 1us to 1h"), ("true", "true is not")]
    {
        let error = file(&format!("[tracer.off_cpu]\nminimum = {value}")).unwrap_err();
        assert!(
            error.starts_with("a.toml:2: [tracer.off_cpu]: minimum: ") && error.contains(said),
            "{error}"
        );
    }
    let mut config = AgentConfig::default();
    config.enable_only(&["profile".to_owned(), "off_cpu".to_owned()]).unwrap();
    assert_eq!(config.enabled().map(|(info, _)| info.name).collect::<Vec<_>>(), ["profile", "off_cpu"]);
}

#[test]
#[cfg(not(feature = "unwind"))]
fn builds_that_cannot_profile_waits_say_so() {
    let says = "this build has no off-CPU profiles (feature `unwind`)";
    assert_eq!(file("[tracer.off_cpu]\nenabled = true").unwrap_err(), format!("a.toml:1: {says}"));
    let set = [flag("--set", "tracer.off_cpu.enabled", "true")];
    assert_eq!(AgentConfig::resolve(None, [], &set).unwrap_err().what, says);
    let variable = [("EBPF_OTLP_TRACER_OFF_CPU_MINIMUM".to_owned(), "1s".to_owned())];
    assert_eq!(AgentConfig::resolve(None, variable, &[]).unwrap_err().what, says);
    assert_eq!(AgentConfig::default().enable_only(&["off_cpu".to_owned()]).unwrap_err().what, says);
}
