//! What to sample and how: one [`Config`] for the command and for the library.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::key::Quoted;
use crate::units::show_duration;

/// Lowest and highest sampling frequency, in Hz.
pub const FREQUENCY_RANGE: std::ops::RangeInclusive<u32> = 1..=1000;
/// Shortest and longest window.
pub const WINDOW_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
/// Most processes that `filter.pids` may name; the kernel-side table is sized for their children too.
pub const MAX_PIDS: usize = 1024;
/// Longest `comm` that the kernel keeps (`TASK_COMM_LEN` without the terminating zero).
pub const MAX_COMM: usize = 15;

/// Settings of the CPU profiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Samples a second on each CPU.
    pub frequency: u32,
    /// How long one profile lasts before the next begins.
    pub window: Duration,
    /// Which tasks to sample.
    pub filter: Filter,
    /// How stacks of processes are walked; `None`: in the best way that this kernel takes.
    pub stacks: Option<Stacks>,
}

/// How stacks of processes are walked, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacks {
    /// In the kernel, by tables made of the call frame information of files: x86-64 and arm64.
    Tables,
    /// In user space, by the same information, over copies of stacks: 16 KiB a sample.
    Copies,
    /// In the kernel, by frame pointers, which most programs lack.
    FramePointers,
}

impl Stacks {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::Tables, Self::Copies, Self::FramePointers];

    /// The name: that of the rung.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Copies => "copies",
            Self::FramePointers => "frame-pointers",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stacks| stacks.as_str() == name)
    }
}

/// Which tasks to sample. Conditions that are given must all hold; an empty filter lets everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Processes with all their threads, as numbered in the agent's pid namespace.
    pub pids: Vec<u32>,
    /// Follow the forks of `pids`.
    pub children: bool,
    /// The thread's name or its process' name, whole.
    pub comm: Option<String>,
    /// A cgroup directory; the ones below it are included.
    pub cgroup: Option<PathBuf>,
}

/// Where the agent runs, for [`Config::recommended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// 19 Hz, 300 s windows.
    Production,
    /// 49 Hz, 120 s windows.
    Staging,
    /// 99 Hz, 60 s windows.
    Development,
    /// 199 Hz, 30 s windows.
    Debug,
}

/// A setting that [`Config::validate`] refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The frequency is outside [`FREQUENCY_RANGE`].
    Frequency(u32),
    /// The window is outside [`WINDOW_RANGE`].
    Window(Duration),
    /// More than [`MAX_PIDS`] processes.
    TooManyPids(usize),
    /// Process 0 is the idle task, which has no number to filter by.
    PidZero,
    /// `children` without `pids` to follow.
    ChildrenOfNobody,
    /// The name is empty, longer than [`MAX_COMM`] bytes, or has a zero in it, which no task's name does.
    Comm(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frequency(hz) => write!(
                f,
                "frequency {hz} Hz is out of range: it must be {} to {}",
                FREQUENCY_RANGE.start(),
                FREQUENCY_RANGE.end()
            ),
            Self::Window(w) => write!(
                f,
                "a window of {} is out of range: it must be {} to {}",
                show_duration(*w),
                show_duration(*WINDOW_RANGE.start()),
                show_duration(*WINDOW_RANGE.end())
            ),
            Self::TooManyPids(n) => {
                write!(f, "{n} processes are more than the {MAX_PIDS} that can be followed")
            }
            Self::PidZero => f.write_str("pid 0 is the idle task, which is never sampled"),
            Self::ChildrenOfNobody => {
                f.write_str("children can only be followed from given processes: add a pid")
            }
            Self::Comm(name) if name.is_empty() => f.write_str("the name of a task cannot be empty"),
            Self::Comm(name) if name.contains('\0') => {
                f.write_str("the name of a task has no zero byte in it")
            }
            Self::Comm(name) => {
                write!(
                    f,
                    "no task is called {}: the kernel keeps {MAX_COMM} bytes, and this has {}",
                    Quoted(name),
                    name.len()
                )
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Self {
        Self::recommended(Environment::Development)
    }
}

impl Config {
    /// Settings that suit an environment, for all tasks.
    pub fn recommended(environment: Environment) -> Self {
        let (frequency, window) = match environment {
            Environment::Production => (19, 300),
            Environment::Staging => (49, 120),
            Environment::Development => (99, 60),
            Environment::Debug => (199, 30),
        };
        Self { frequency, window: Duration::from_secs(window), filter: Filter::default(), stacks: None }
    }

    /// Checks every setting that can be checked without asking the system.
    ///
    /// # Errors
    ///
    /// The first setting that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !FREQUENCY_RANGE.contains(&self.frequency) {
            return Err(ConfigError::Frequency(self.frequency));
        }
        if !WINDOW_RANGE.contains(&self.window) {
            return Err(ConfigError::Window(self.window));
        }
        self.filter.validate()
    }

    /// CPU time between two samples of one CPU, in nanoseconds.
    pub fn period_nanos(&self) -> u64 {
        period_nanos(self.frequency)
    }
}

/// CPU time between two samples of one CPU, in nanoseconds, at so many a second.
pub(crate) fn period_nanos(frequency: u32) -> u64 {
    1_000_000_000 / u64::from(frequency.max(1))
}

impl Filter {
    /// Checks every condition that can be checked without asking the system.
    ///
    /// # Errors
    ///
    /// The first condition that nothing can meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.pids.len() > MAX_PIDS {
            return Err(ConfigError::TooManyPids(self.pids.len()));
        }
        if self.pids.contains(&0) {
            return Err(ConfigError::PidZero);
        }
        if self.children && self.pids.is_empty() {
            return Err(ConfigError::ChildrenOfNobody);
        }
        match &self.comm {
            Some(name) if name.is_empty() || name.len() > MAX_COMM || name.contains('\0') => {
                Err(ConfigError::Comm(name.clone()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommended_settings_are_valid() {
        let expected = [
            (Environment::Production, 19, 300),
            (Environment::Staging, 49, 120),
            (Environment::Development, 99, 60),
            (Environment::Debug, 199, 30),
        ];
        for (environment, frequency, window) in expected {
            let config = Config::recommended(environment);
            assert_eq!((config.frequency, config.window.as_secs()), (frequency, window));
            assert_eq!(config.validate(), Ok(()));
        }
    }

    #[test]
    fn each_setting_has_its_bounds() {
        let good = Config::default();
        let with = |change: &dyn Fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate()
        };
        assert_eq!(with(&|c| c.frequency = 0), Err(ConfigError::Frequency(0)));
        assert_eq!(with(&|c| c.frequency = 1001), Err(ConfigError::Frequency(1001)));
        assert_eq!(with(&|c| c.frequency = 1000), Ok(()));
        assert!(matches!(with(&|c| c.window = Duration::from_millis(999)), Err(ConfigError::Window(_))));
        assert_eq!(with(&|c| c.filter.pids = vec![1; 1025]), Err(ConfigError::TooManyPids(1025)));
        assert_eq!(with(&|c| c.filter.pids = vec![0]), Err(ConfigError::PidZero));
        assert_eq!(with(&|c| c.filter.children = true), Err(ConfigError::ChildrenOfNobody));
        assert_eq!(with(&|c| c.filter.comm = Some("x".repeat(15))), Ok(()));
        assert!(matches!(with(&|c| c.filter.comm = Some("x".repeat(16))), Err(ConfigError::Comm(_))));
        assert!(matches!(with(&|c| c.filter.comm = Some("a\0b".into())), Err(ConfigError::Comm(_))));
        assert!(matches!(with(&|c| c.filter.comm = Some(String::new())), Err(ConfigError::Comm(_))));
    }
}
