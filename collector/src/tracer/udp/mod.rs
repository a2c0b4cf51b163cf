//! UDP: bytes, datagrams and drops by process, counted where sends and receives return.

mod define;

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use bpf_loader::btf::Kind;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::{RunningTarget, TargetBtf};
use bpf_programs::events::udp::{Stats as Counts, Sums, WaitingDrops};
use otlp_encode::Value;

use super::ladder::Chosen;
use super::programs::{Programs, Rungs, add_counts, attach_by_section};
use super::windows::Windows;
use super::{Info, Overhead, Start, Stats, Tracer, boot_nanos, cause};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::objects;
use crate::telemetry::{Metric, Owner, Point, PointValue, Sink};

pub use define::{DATAGRAMS, DROPS, FULL_SOCKETS, INFO, NETWORK_IO, TRAFFIC};

/// What a send or a receive costs whoever calls: an estimate from the programs' length, not measured yet.
const NANOS_PER_HIT: f64 = 250.0;
/// The program that sees datagrams leave receive queues.
const CONSUME: &str = "consume_kprobe";
/// Datagrams that the tracer sends to itself to see whether [`CONSUME`] does; other receives may come meanwhile.
const TRIES: u64 = 16;
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// Entries read with one call.
const BATCH: usize = 128;
/// Bytes of `struct socket_key`.
const SOCKET: usize = 16;
/// Drops are given up whose socket has dropped no more, and nobody has received from, for so long.
const UNCLAIMED_NANOS: u64 = 60_000_000_000;

/// Entries of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    processes: u32,
    sockets: u32,
    calls: u32,
}

impl Sizes {
    /// What the kernel's hash table takes for an entry beside key and value.
    const ENTRY: usize = 64;

    /// Half for processes, of which there are two tables, a quarter each for sockets and for calls.
    fn of(memory: usize) -> Self {
        let entries = |bytes: usize, entry: usize| (bytes / entry).clamp(64, 16 << 10) as u32;
        Self {
            processes: entries(memory / 4, Self::ENTRY + Sums::SIZE),
            sockets: entries(memory / 4, Self::ENTRY + SOCKET + WaitingDrops::SIZE),
            calls: entries(memory / 4, Self::ENTRY + 24),
        }
    }

    fn apply(self, spec: &mut ObjectSpec<'_>) -> Result<()> {
        for (name, entries) in [("dropped", self.sockets), ("calls", self.calls)] {
            spec.map_mut(name).ok_or_else(|| Error::no_map(name))?.max_entries = entries;
        }
        let processes = spec.map_mut("processes").and_then(|map| map.inner.as_deref_mut());
        processes.ok_or_else(|| Error::no_map("processes"))?.max_entries = self.processes;
        Ok(())
    }
}

/// How many arguments the kernel's `udp_recvmsg` has; `None` if its types do not tell.
fn receive_arguments(target: &RunningTarget) -> Option<u32> {
    let btf = target.vmlinux().ok()??;
    let function = btf.type_by_id(btf.find_by_name("udp_recvmsg", Kind::Func)?).ok()?;
    let prototype = btf.type_by_id(function.type_id()?).ok()?;
    u32::try_from(prototype.params().count()).ok()
}

/// Counts sends and receives.
#[derive(Debug)]
struct UdpTracer {
    programs: Programs,
    windows: Windows<Hash<u32, [u8; Sums::SIZE]>>,
    counts: PerCpuArray<[u8; Counts::SIZE]>,
    /// Datagrams dropped, by socket.
    waiting: Hash<[u8; SOCKET], [u8; WaitingDrops::SIZE]>,
    /// Whether there are any, which spares receives to look.
    any_waiting: Global<u32>,
    /// Drops that nobody claimed.
    unclaimed: u64,
    sizes: Sizes,
    /// Processes in the last window.
    seen: u64,
}

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let sizes = Sizes::of(start.memory);
    let arguments = receive_arguments(start.target);
    let bytes = objects::UDP.unpack()?;
    let open = |object: &Object| {
        let mut spec = ObjectSpec::parse(&bytes).map_err(Error::load)?;
        sizes.apply(&mut spec)?;
        let windows = Windows::create(&spec, object, "processes", Hash::new)?;
        let counts = object.map("stats").and_then(PerCpuArray::new).map_err(Error::load)?;
        let waiting = object.map("dropped").and_then(Hash::new).map_err(Error::load)?;
        Ok((windows, counts, waiting, object.global("any_dropped").map_err(Error::load)?))
    };
    let prepare = |spec: &mut ObjectSpec<'_>, _: Rungs<'_>| {
        if let Some(arguments) = arguments {
            spec.set_global("receive_arguments", &arguments.to_ne_bytes()).map_err(Error::load)?;
        }
        sizes.apply(spec)
    };
    let mut attach = |object: &Object, name: &str| {
        let link = attach_by_section(object.program(name).map_err(Error::load)?)?;
        if name == CONSUME {
            let counts = object.map("stats").and_then(PerCpuArray::new).map_err(Error::load)?;
            sees_receives(&counts)?;
        }
        Ok(vec![link])
    };
    let (programs, (windows, counts, waiting, any_waiting)) =
        Programs::start_with(&bytes, INFO.ladders, start, prepare, open, &mut attach)?;
    Ok(Box::new(UdpTracer { programs, windows, counts, waiting, any_waiting, unclaimed: 0, sizes, seen: 0 }))
}

/// That the kernel calls the function that [`CONSUME`] is attached to: its compiler may have put the function's code into the
/// callers. Sends empty datagrams to itself; where there is no loopback device to send them by, nothing is known, and nothing said.
fn sees_receives(counts: &PerCpuArray<[u8; Counts::SIZE]>) -> Result<()> {
    let exchange = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..TRIES {
            socket.send_to(&[], socket.local_addr()?)?;
        }
        Ok(socket)
    };
    // The kernel may pass over a program now and then, while another runs.
    for _ in 0..3 {
        let before = decode(counts)?.hits;
        let Ok(socket) = exchange() else { return Ok(()) };
        let received = (0..TRIES).take_while(|_| socket.recv(&mut [0]).is_ok()).count() as u64;
        if received == TRIES && decode(counts)?.hits.saturating_sub(before) >= TRIES {
            return Ok(());
        }
    }
    Err(Error::io("look for calls of skb_consume_udp")(io::Error::other("the kernel does not call it")))
}

fn decode(counts: &PerCpuArray<[u8; Counts::SIZE]>) -> Result<Counts> {
    let counts = Counts::decode(&add_counts(counts)?);
    counts.ok_or_else(|| Error::internal("size of udp_stats"))
}

/// Hands over what a process did.
fn tell(pid: u32, sums: &Sums, sink: &mut dyn Sink) {
    let owner = Owner::Process { pid, comm: sums.comm };
    let directions =
        [("transmit", sums.sent_bytes, sums.sends), ("receive", sums.received_bytes, sums.receives)];
    let mut point = |metric: &'static Metric, attributes: &[_], number: u64| {
        if number > 0 {
            let value = PointValue::Int(i64::try_from(number).unwrap_or(i64::MAX));
            sink.point(Point { metric, owner, attributes, value });
        }
    };
    for (direction, bytes, calls) in directions {
        let direction = (define::DIRECTION, Value::Str(direction));
        point(&NETWORK_IO, &[direction, (define::TRANSPORT, Value::Str("udp"))], bytes);
        point(&DATAGRAMS, &[direction], calls);
    }
    point(&DROPS, &[], sums.drops);
}

/// Whether nobody will ask for these drops any more.
fn is_unclaimed(drops: &WaitingDrops, now: u64) -> bool {
    now.saturating_sub(drops.last) > UNCLAIMED_NANOS
}

impl UdpTracer {
    /// Gives up drops that nobody claims, most likely of sockets that are closed, and makes room.
    fn give_up_unclaimed(&mut self) -> Result<()> {
        if self.any_waiting.get() == 0 {
            return Ok(());
        }
        let now = boot_nanos();
        let (mut old, mut waiting) = (Vec::new(), 0);
        let mut batches = self.waiting.batches(BATCH);
        while let Some((sockets, drops)) = batches.next().map_err(Error::kernel)? {
            waiting += sockets.len();
            let drops = drops.iter().map(|drops| WaitingDrops::decode(drops));
            let all = sockets.iter().zip(drops).filter_map(|(socket, drops)| Some((*socket, drops?)));
            old.extend(all.filter(|(_, drops)| is_unclaimed(drops, now)));
        }
        if waiting == 0 {
            self.any_waiting.set(&0).map_err(Error::kernel)?;
            // Programs note a drop before they say that there is one: either is seen.
            if self.waiting.batches(1).next().map_err(Error::kernel)?.is_some() {
                self.any_waiting.set(&1).map_err(Error::kernel)?;
            }
        }
        for (socket, drops) in &old {
            if self.waiting.delete(socket).map_err(Error::kernel)? {
                self.unclaimed += drops.count;
            }
        }
        Ok(())
    }
}

impl Tracer for UdpTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        self.programs.chosen()
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.programs.forget_ended()?;
        self.give_up_unclaimed()?;
        self.seen = 0;
        let mut batches = self.windows.swap()?.take_batches(BATCH);
        while let Some((pids, sums)) = batches.next().map_err(Error::kernel)? {
            for (pid, sums) in pids.iter().zip(sums) {
                Sums::decode(sums).iter().for_each(|sums| tell(*pid, sums, sink));
                self.seen += 1;
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.programs.pause();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if !self.is_running() {
            // Calls that were under way have no end that is seen.
            self.programs.forget::<8, 16>("calls")?;
        }
        self.programs.resume()
    }

    fn is_running(&self) -> bool {
        self.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        self.programs.set_filter(filter)
    }

    fn stats(&mut self) -> Result<Stats> {
        let counts = decode(&self.counts)?;
        Ok(Stats {
            hits: counts.hits + counts.drops,
            dropped: vec![
                (cause::TABLE_FULL, counts.processes_full),
                (cause::TOO_MANY_AT_ONCE, counts.calls_full),
                (cause::SOCKETS, counts.sockets_full),
                (cause::OWNER_NOT_KNOWN, self.unclaimed),
                self.programs.missed()?,
                self.programs.children_lost(),
            ],
            map_fill: vec![("processes", self.seen, self.sizes.processes.into())],
            ..Stats::default()
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        self.programs.overhead(decode(&self.counts)?.hits, NANOS_PER_HIT)
    }

    fn map_bytes(&self) -> u64 {
        self.programs.map_bytes() + self.windows.map_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_wait_from_the_last_on() {
        let drops = WaitingDrops { count: 3, last: 7 };
        assert!(!is_unclaimed(&drops, 7 + UNCLAIMED_NANOS) && is_unclaimed(&drops, 8 + UNCLAIMED_NANOS));
        // One that has come since the clock was read.
        assert!(!is_unclaimed(&drops, 0));
    }

    #[test]
    fn tables_fit_the_memory() {
        let sizes = Sizes::of(1 << 20);
        let bytes = 2 * sizes.processes as usize * (Sizes::ENTRY + Sums::SIZE)
            + sizes.sockets as usize * (Sizes::ENTRY + SOCKET + WaitingDrops::SIZE)
            + sizes.calls as usize * (Sizes::ENTRY + 24);
        assert!((900 << 10..=1 << 20).contains(&bytes), "{bytes}");
        assert_eq!(Sizes::of(0), Sizes { processes: 64, sockets: 64, calls: 64 });
    }
}
