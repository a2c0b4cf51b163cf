//! Tells the service manager how the agent fares, as `sd_notify(3)` does: a datagram of `NAME=VALUE` lines to the socket that
//! `NOTIFY_SOCKET` names.
//!
//! The watchdog is served by the agent's own loop, so that one that hangs is started again.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use bpf_sys::clock::Clock;

/// How soon a service manager that has no room is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The service manager's ear.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// How often it wants to hear that the agent lives, halved.
    every: Option<Duration>,
    /// When it shall hear so next.
    due: Option<Instant>,
    /// What it waits for and would not take yet: without, it kills an agent that is well. At most `RELOADING=1` and `READY=1`.
    unsent: Vec<String>,
    /// When that is tried again.
    retry: Instant,
    /// The status that it knows.
    status: String,
}

impl Notifier {
    /// What the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` ask of this process; `None` where nobody listens.
    ///
    /// # Errors
    ///
    /// The socket's name is none of a unix socket, or there is no descriptor left.
    pub fn from_env(variable: &dyn Fn(&str) -> Option<String>) -> io::Result<Option<Self>> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let manager = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if name.starts_with('/') => SocketAddr::from_pathname(&name)?,
            None => {
                let what = "is neither a path nor, behind an @, the name of an abstract socket";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that reads nothing stops nobody.
        socket.set_nonblocking(true)?;
        let number = |name: &str| variable(name)?.trim().parse::<u64>().ok();
        let of_this_process = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && of_this_process);
        let every = micros.map(|micros| Duration::from_micros(micros) / 2);
        let now = Instant::now();
        let due = every.map(|every| now + every);
        Ok(Some(Self { socket, manager, every, due, unsent: Vec::new(), retry: now, status: String::new() }))
    }

    fn send(&self, lines: &str) -> io::Result<()> {
        self.socket.send_to_addr(lines.as_bytes(), &self.manager).map(drop)
    }

    /// Sends what it must hear, in order.
    fn send_all(&mut self) -> io::Result<()> {
        while let Some(lines) = self.unsent.first() {
            self.send(lines).inspect_err(|_| self.retry = Instant::now() + RETRY)?;
            self.unsent.remove(0);
        }
        Ok(())
    }

    /// It has started, or has read its configuration again.
    ///
    /// # Errors
    ///
    /// The socket is gone, or full; [`alive`](Self::alive) tries again.
    pub fn ready(&mut self, status: &str) -> io::Result<()> {
        self.status.clear();
        self.unsent.retain(|lines| !lines.starts_with("READY"));
        self.unsent.push(format!("READY=1\nSTATUS={}", one_line(status)));
        self.send_all()?;
        status.clone_into(&mut self.status);
        Ok(())
    }

    /// Says how it fares, where that is news.
    ///
    /// # Errors
    ///
    /// As of [`ready`](Self::ready).
    pub fn status(&mut self, status: &str) -> io::Result<()> {
        if self.status == status {
            return Ok(());
        }
        // In this order: what is unsent has an older status.
        self.send_all()?;
        self.send(&format!("STATUS={}", one_line(status)))?;
        status.clone_into(&mut self.status);
        Ok(())
    }

    /// It begins to read its configuration again; [`ready`](Self::ready) follows.
    ///
    /// # Errors
    ///
    /// As of [`ready`](Self::ready).
    pub fn reloading(&mut self) -> io::Result<()> {
        let micros = Clock::Monotonic.nanos() / 1000;
        // The end of this reload will be news enough.
        self.unsent.clear();
        self.unsent.push(format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        self.send_all()
    }

    /// It ends.
    ///
    /// # Errors
    ///
    /// As of [`ready`](Self::ready).
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1\nSTATUS=sending what is left")
    }

    /// When [`alive`](Self::alive) is due next; `None` where nothing is unsent and there is no watchdog.
    pub fn deadline(&self) -> Option<Instant> {
        let retry = (!self.unsent.is_empty()).then_some(self.retry);
        self.due.into_iter().chain(retry).min()
    }

    /// Says that it lives, where that is due, and what could not be said before.
    ///
    /// # Errors
    ///
    /// As of [`ready`](Self::ready).
    pub fn alive(&mut self, now: Instant) -> io::Result<()> {
        if now >= self.retry {
            self.send_all()?;
        }
        let Some(every) = self.every.filter(|_| self.due.is_some_and(|due| now >= due)) else {
            return Ok(());
        };
        let sent = self.send("WATCHDOG=1");
        self.due = Some(now + if sent.is_ok() { every } else { every / 4 });
        sent
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manager(UnixDatagram);

    impl Manager {
        fn heard(&self) -> Option<String> {
            let mut buffer = [0; 512];
            self.0.set_nonblocking(true).unwrap();
            let len = self.0.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
        }
    }

    fn abstract_manager(test: &str) -> (Manager, String) {
        let name = format!("ebpf-otlp-{test}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        (Manager(UnixDatagram::bind_addr(&address).unwrap()), format!("@{name}"))
    }

    fn notifier(variables: &[(&str, &str)]) -> io::Result<Option<Notifier>> {
        Notifier::from_env(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_manager_hears_what_happens() {
        let (manager, name) = abstract_manager("hears");
        let mut notifier = notifier(&[("NOTIFY_SOCKET", &name)]).unwrap().unwrap();
        notifier.ready("traces\nFDSTORE=1").unwrap();
        assert_eq!(manager.heard().unwrap(), "READY=1\nSTATUS=traces FDSTORE=1");
        notifier.status("traces\nFDSTORE=1").unwrap();
        assert_eq!(manager.heard(), None, "no news");
        notifier.status("traces less").unwrap();
        assert_eq!(manager.heard().unwrap(), "STATUS=traces less");
        notifier.reloading().unwrap();
        let reloading = manager.heard().unwrap();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        notifier.stopping().unwrap();
        assert!(manager.heard().unwrap().starts_with("STOPPING=1\n"));
        notifier.alive(Instant::now() + Duration::from_secs(3600)).unwrap();
        assert_eq!(manager.heard(), None, "nobody asked for a watchdog");
        drop(manager);
        assert!(notifier.stopping().is_err(), "told, and nobody waits");
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_bites() {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-notify-{}", std::process::id()));
        let manager = Manager(UnixDatagram::bind(&path).unwrap());
        let name = path.to_str().unwrap();
        let variables = [("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "2000000")];
        let mut own = notifier(&variables).unwrap().unwrap();
        let start = own.due.unwrap() - Duration::from_secs(1);
        own.alive(start + Duration::from_millis(999)).unwrap();
        assert_eq!(manager.heard(), None);
        own.alive(start + Duration::from_millis(1001)).unwrap();
        assert_eq!(manager.heard().unwrap(), "WATCHDOG=1");
        assert_eq!(own.deadline(), Some(start + Duration::from_millis(2001)));
        let anothers = [variables[0], variables[1], ("WATCHDOG_PID", "1")];
        assert_eq!(notifier(&anothers).unwrap().unwrap().deadline(), None);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_a_busy_manager_has_no_room_for_is_said_again() {
        let (manager, name) = abstract_manager("busy");
        let mut own = notifier(&[("NOTIFY_SOCKET", &name), ("WATCHDOG_USEC", "2000000")]).unwrap().unwrap();
        let fill = |own: &Notifier| while own.send("X=1").is_ok() {};
        let drain = || {
            let heard: Vec<String> = std::iter::from_fn(|| manager.heard()).collect();
            heard.into_iter().filter(|heard| heard != "X=1").collect::<Vec<_>>()
        };
        fill(&own);
        let full = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        full(own.ready("traces"));
        assert!(own.deadline().unwrap() <= Instant::now() + RETRY, "soon");
        full(own.reloading());
        full(own.ready("traces more"));
        full(own.status("traces less"));
        assert_eq!(drain(), [""; 0]);
        let now = Instant::now() + RETRY;
        own.alive(now).unwrap();
        let heard = drain();
        assert!(heard[0].starts_with("RELOADING=1\n"), "{heard:?}");
        assert_eq!(heard[1..], ["READY=1\nSTATUS=traces more"]);
        own.status("traces less").unwrap();
        assert_eq!(drain(), ["STATUS=traces less"], "it was not heard before");

        let due = own.deadline().unwrap();
        fill(&own);
        full(own.alive(due));
        assert_eq!(own.deadline(), Some(due + Duration::from_millis(250)), "before it bites");
        assert_eq!(drain(), [""; 0]);
        own.alive(due + Duration::from_millis(250)).unwrap();
        assert_eq!(drain(), ["WATCHDOG=1"]);
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        assert!(notifier(&[]).unwrap().is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "")]).unwrap().is_none());
        for wrong in ["relative", "vsock:2:1", &format!("@{}", "x".repeat(200))] {
            assert!(notifier(&[("NOTIFY_SOCKET", wrong)]).is_err(), "{wrong}");
        }
    }
}
