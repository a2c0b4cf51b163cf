//! Has an agent measure the workload, and says of each tracer whether its numbers are those of the workload.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Workload;
use crate::check;
use crate::received::{Received, of_resource};
use crate::receiver::Receiver;

/// All that the workload is for, without the heap, whose tracer follows no children.
const WITH_CHILDREN: [&str; 9] =
    ["profile", "syscalls", "tcp", "udp", "dns", "memory", "sched", "disk", "process"];
/// For an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One run of the agent.
struct Agent {
    process: Child,
    receiver: Receiver,
    said: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Agent {
    fn start(
        agent: &[String],
        tracers: &[&str],
        more: &[&str],
        interval: &str,
        pid: u32,
    ) -> io::Result<Self> {
        let receiver = Receiver::start()?;
        let mut command = command(agent);
        command.args(["run", "--interval", interval, "--cpu-limit", "0", "--endpoint", &receiver.url()]);
        // Otherwise the count of durations is an estimate at high rates.
        command.args(["--set", "tracer.syscalls.every_duration=true", "--set", "tracer.heap.sample_bytes=0"]);
        command.args(["--only", &tracers.join(","), "--pid", &pid.to_string()]).args(more);
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let stderr = process.stderr.take().expect("a pipe");
        let into = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.for_each(|line| into.lock().expect("not poisoned").push(line));
        });
        Ok(Self { process, receiver, said, reader })
    }

    /// Waits for the end of the first window; whether it came.
    fn wait(&mut self) -> bool {
        let limit = Instant::now() + PATIENCE;
        while !self.receiver.wait_for_metrics(Duration::from_secs(1)) {
            if Instant::now() > limit || self.process.try_wait().is_ok_and(|status| status.is_some()) {
                return false;
            }
        }
        true
    }

    /// Ends it as a service manager does: what it sent, and the rest that is known of it.
    fn end(mut self) -> io::Result<(Received, Value)> {
        let [resident, peak] = ["VmRSS:", "VmHWM:"].map(|key| kilobytes(self.process.id(), key));
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id() as i32) {
            // It may have ended already, as its exit code then says.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let status = self.process.wait()?;
        // Of the process nothing is left to be said.
        let _ = self.reader.join();
        let said = self.said.lock().expect("not poisoned").clone();
        let about = json!({"exit_code": status.code(), "resident_kilobytes": resident, "peak_kilobytes": peak, "said": said});
        Ok((self.receiver.take()?, about))
    }
}

fn command(agent: &[String]) -> Command {
    let mut words = agent.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}

/// What the process has, as its status says by this key.
fn kilobytes(pid: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// How long a process ran, its threads together, by ticks of which there are 100 in a second.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let ticks = fields.into_iter().flatten().filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// How long the process ran as the profiles have it: samples times their period.
fn profiled_seconds(received: &Received, pid: u32) -> f64 {
    let pid = pid.to_string();
    let resources = received.profiles.iter().flat_map(|request| &request.resource_profiles);
    let own =
        resources.filter(|r| of_resource(&r.resource).get("process.pid").is_some_and(|own| *own == pid));
    let profiles = own.flat_map(|resource| &resource.scope_profiles).flat_map(|scope| &scope.profiles);
    let nanoseconds = profiles.map(|profile| {
        let count: i64 = profile.samples.iter().flat_map(|sample| &sample.values).sum();
        count as f64 * profile.period as f64
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// Runs `check` and `run` of an agent, which is started by these words, on the workload, which works for that time.
///
/// | field | what |
/// |---|---|
/// | `check` | `tracers` as `check --json` has them |
/// | `tracers` | by name: `usable`, as `check` has it, and `wrong`, the numbers that are not the workload's |
/// | `started` | whether a first window came |
/// | `profiled` | CPU time by the profile over CPU time by the kernel |
/// | `run`, `heap` | of each of the two runs `exit_code`, `resident_kilobytes` at the end, `peak_kilobytes`, `said`; of the second only where `check` finds the heap's tracer usable |
///
/// # Errors
///
/// The agent cannot be started, or there is no port.
pub fn measure(agent: &[String], time: Duration) -> io::Result<Value> {
    let check = command(agent).arg("check").stderr(Stdio::inherit()).output()?;
    let tracers = check::tracers(&String::from_utf8_lossy(&check.stdout));
    let check = json!({"tracers": tracers.ok_or_else(|| io::Error::other("check says nothing of tracers"))?});
    let usable = |name: &str| {
        let tracers = check["tracers"].as_array();
        tracers.is_some_and(|all| all.iter().any(|tracer| tracer["name"] == name && tracer["ok"] == true))
    };

    let mut workload = Workload::start(&std::env::current_exe()?);
    // Children are followed by what the kernel says of them, which is not to be had everywhere.
    let children: &[&str] = if usable("process") { &["--children"] } else { &[] };
    // All that is received is decoded at last, in the memory of a board: as seldom as agents usually send.
    let interval = if time.is_zero() { "1s" } else { "60s" };
    let mut first = Agent::start(agent, &WITH_CHILDREN, children, interval, workload.pid())?;
    let mut second = match usable("heap") {
        true => Some(Agent::start(agent, &["heap"], &[], interval, workload.pid())?),
        false => None,
    };
    let started = first.wait();
    if let Some(second) = &mut second {
        // Where it cannot trace this program, it has ended.
        second.wait();
    }
    let before = cpu_seconds(workload.pid());
    workload.work_for(time);
    let ran = cpu_seconds(workload.pid()) - before;

    let mut tracers = serde_json::Map::new();
    let mut judge = |name: &str, received: &Received| {
        let wrong = workload.differences(received, &[name]);
        tracers.insert(name.to_owned(), json!({"usable": usable(name), "wrong": wrong}));
    };
    let (received, run) = first.end()?;
    WITH_CHILDREN.iter().for_each(|name| judge(name, &received));
    let heap = match second {
        Some(agent) => {
            let (received, about) = agent.end()?;
            judge("heap", &received);
            about
        }
        None => {
            judge("heap", &Received::default());
            Value::Null
        }
    };
    let profiled = if ran > 0.0 { profiled_seconds(&received, workload.pid()) / ran } else { 0.0 };
    Ok(json!({
        "check": check, "tracers": tracers, "started": started, "profiled": profiled, "run": run, "heap": heap,
    }))
}
