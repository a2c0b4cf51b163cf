//! Options of `profile`.

use std::path::PathBuf;
use std::time::Duration;

use collector::config::{Config, Filter, Stacks};
use collector::output::Format;

use super::{Command, Options, Stop};

#[derive(Debug, PartialEq)]
pub struct Profile {
    pub config: Config,
    /// `None`: until interrupted.
    pub duration: Option<Duration>,
    pub outputs: Vec<(PathBuf, Format)>,
    pub endpoints: Vec<String>,
    /// Directory for what receivers do not take yet.
    pub spool: Option<PathBuf>,
    /// Bytes of the spool of each receiver.
    pub spool_size: Option<u64>,
    /// How long data may be in memory alone.
    pub spool_delay: Option<Duration>,
    /// The kernel's types.
    pub btf: Option<PathBuf>,
    pub json: bool,
    /// Show the hottest functions all the time.
    pub top: bool,
    /// Profile waits of so long or longer, and not CPU time.
    pub off_cpu: Option<Duration>,
    /// Servers of files for debuggers.
    #[cfg(feature = "debuginfod")]
    pub debuginfod: Vec<String>,
}

pub(super) fn parse(options: &mut Options<'_>) -> Result<Command, Stop> {
    let mut config = Config::default();
    let mut filter = Filter::default();
    let mut profile = Profile {
        config: config.clone(),
        duration: None,
        outputs: Vec::new(),
        endpoints: Vec::new(),
        spool: None,
        spool_size: None,
        spool_delay: None,
        btf: None,
        json: false,
        top: false,
        off_cpu: None,
        #[cfg(feature = "debuginfod")]
        debuginfod: Vec::new(),
    };
    while let Some(given) = options.next()? {
        match given.name() {
            "--duration" => profile.duration = Some(given.duration()?),
            "--interval" => config.window = given.duration()?,
            "--frequency" => config.frequency = given.number()?,
            "--stacks" => {
                let name = given.string()?;
                let named = Stacks::named(&name);
                config.stacks = Some(named.ok_or("--stacks is tables, copies or frame-pointers")?);
            }
            "--pid" => filter.pids.push(given.number()?),
            "--children" => filter.children = true,
            "--comm" => filter.comm = Some(given.string()?),
            "--cgroup" => filter.cgroup = Some(given.path()),
            "--output" => {
                let path = given.path();
                let format = Format::from_path(&path).map_err(|e| e.to_string())?;
                profile.outputs.push((path, format));
            }
            "--endpoint" => profile.endpoints.push(given.string()?),
            "--spool" => profile.spool = Some(given.path()),
            "--spool-size" => profile.spool_size = Some(given.size()?),
            "--spool-delay" => profile.spool_delay = Some(given.duration()?),
            "--btf" => profile.btf = Some(given.path()),
            "--json" => profile.json = true,
            "--top" => profile.top = true,
            "--off-cpu" => profile.off_cpu = Some(given.duration()?),
            #[cfg(feature = "debuginfod")]
            "--debuginfod" => profile.debuginfod.push(given.string()?),
            _ => return Err(given.unread()),
        }
    }
    if profile.spool_size.is_some() && profile.spool.is_none() {
        return Err("--spool-size says how much a spool may hold: it needs --spool".into());
    }
    if profile.spool_delay.is_some() && profile.spool.is_none() {
        return Err("--spool-delay says when to write to a spool: it needs --spool".into());
    }
    if profile.top && profile.json {
        return Err("--top is for people and --json for programs: use one of them".into());
    }
    if profile.top && profile.off_cpu.is_some() {
        return Err("--top shows CPU time, and --off-cpu profiles waits: use one of them".into());
    }
    filter.pids.sort_unstable();
    filter.pids.dedup();
    config.filter = filter;
    config.validate().map_err(|e| e.to_string())?;
    profile.config = config;
    Ok(Command::Profile(Box::new(profile)))
}
