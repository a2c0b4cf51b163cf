//! Records of the kernel's to points and spans.

use std::net::Ipv6Addr;

use bpf_programs::events::ring::Event;
use bpf_programs::events::tcp::{CLIENT, Connection, Durations, SCALE, Series, SeriesKey};
use bpf_sys::Errno;
use otlp_encode::Value;

use super::define::*;
use super::ledger::{Account, Told};
use crate::sorted::SortedMap;
use crate::telemetry::{Attribute, Exponential, Metric, Owner, Point, PointValue, Sink, Span, SpanKind};

/// Name of a state, as `ss` and the kernel's headers have it.
const fn state_name(state: u16) -> &'static str {
    match state {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        11 => "CLOSING",
        _ => "CLOSE",
    }
}

/// The value of `error.type`; `None` where nothing went wrong.
fn error_type(error: u32) -> Option<&'static str> {
    let error = i32::try_from(error).ok()?;
    (error != 0).then(|| Errno::from_raw(error).name().unwrap_or("_OTHER"))
}

fn role_name(role: u8) -> &'static str {
    if role == CLIENT { "client" } else { "server" }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// IPv4 as IPv6 maps it is IPv4.
fn address(bytes: [u8; 16]) -> std::net::IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// Calls `with` with the attributes of a series.
fn series_attributes(key: &SeriesKey, error: Option<&'static str>, with: impl FnOnce(&[Attribute<'_>])) {
    let mut attributes = vec![(ROLE, Value::Str(role_name(key.role)))];
    attributes.extend(error.map(|error| (ERROR_TYPE, Value::Str(error))));
    with_peer(key, attributes, with);
}

/// Calls `with` with these attributes and the peer's, if peers are told apart.
fn with_peer<'a>(key: &SeriesKey, attributes: Vec<Attribute<'a>>, with: impl FnOnce(&[Attribute<'_>])) {
    let mut attributes: Vec<Attribute<'_>> = attributes;
    let peer = (key.peer != [0; 16]).then(|| address(key.peer).to_string());
    if let Some(peer) = &peer {
        attributes.push((PEER_ADDRESS, Value::Str(peer)));
        if key.peer_port != 0 {
            attributes.push((PEER_PORT, Value::Int(u16::from_be(key.peer_port).into())));
        }
    }
    with(&attributes);
}

/// Connections that ended, by how.
pub fn ended(key: &SeriesKey, series: &Series, sink: &mut dyn Sink) {
    if series.ended > 0 {
        let owner = Owner::Process { pid: key.tgid, comm: series.comm };
        let value = PointValue::Int(series.ended as i64);
        series_attributes(key, error_type(key.error.into()), |attributes| {
            sink.point(Point { metric: &CONNECTIONS, owner, attributes, value });
        });
    }
}

/// Round-trip times of connections that live, by the bytes of their [`SeriesKey`].
pub type LivingRtt = SortedMap<[u8; SeriesKey::SIZE], ([u8; 16], Exponential)>;

/// Durations of a series, and, with its [`LivingRtt`], round-trip times.
pub fn durations(key: &SeriesKey, series: &Series, sink: &mut dyn Sink) {
    for (metric, bytes) in [
        (&CONNECT_DURATION, &series.connect),
        (&CONNECTION_DURATION, &series.connection),
        (&RTT, &series.rtt),
    ] {
        histogram(metric, key, series.comm, &exponential(bytes), sink);
    }
}

/// One histogram of a series, unless it is empty.
pub fn histogram(
    metric: &'static Metric,
    key: &SeriesKey,
    comm: [u8; 16],
    histogram: &Exponential,
    sink: &mut dyn Sink,
) {
    if histogram.count() == 0 {
        return;
    }
    series_attributes(key, None, |attributes| {
        sink.point(Point {
            metric,
            owner: Owner::Process { pid: key.tgid, comm },
            attributes,
            value: PointValue::Histogram(histogram),
        });
    });
}

fn exponential(bytes: &[u8]) -> Exponential {
    let Some(durations) = Durations::decode(bytes) else { return Exponential::new(SCALE) };
    let slots: Vec<u64> = durations.counts().collect();
    Exponential::from_slots(SCALE, durations.zero.into(), &slots, durations.sum_ns)
}

/// Bytes and segments.
pub fn amounts(told: &Told, sink: &mut dyn Sink) {
    // Bytes have no role: a process may be both.
    let mut bytes: SortedMap<Account, ([u8; 16], [u64; 2])> = SortedMap::new();
    for (account, (comm, [sent, received, again, segments_sent, segments_received])) in told {
        let Some(key) = SeriesKey::decode(account) else { continue };
        let of = bytes.entry(without_role(key)).or_insert((*comm, [0; 2]));
        of.1[0] += sent;
        of.1[1] += received;
        let role = (ROLE, Value::Str(role_name(key.role)));
        sum(&RETRANSMITS, &key, *comm, vec![role], *again, sink);
        for (direction, segments) in [("transmit", *segments_sent), ("receive", *segments_received)] {
            let attributes = vec![role, (DIRECTION, Value::Str(direction))];
            sum(&SEGMENTS, &key, *comm, attributes, segments, sink);
        }
    }
    for (account, (comm, [sent, received])) in bytes {
        let Some(key) = SeriesKey::decode(&account) else { continue };
        for (direction, bytes) in [("transmit", sent), ("receive", received)] {
            let attributes = vec![(DIRECTION, Value::Str(direction)), (TRANSPORT, Value::Str("tcp"))];
            sum(&NETWORK_IO, &key, comm, attributes, bytes, sink);
        }
    }
}

/// The key of what a process does in both roles.
fn without_role(key: SeriesKey) -> Account {
    SeriesKey { role: 0, ..key }.encode()
}

/// A sum of a series, unless it has not grown.
fn sum(
    metric: &'static Metric,
    key: &SeriesKey,
    comm: [u8; 16],
    attributes: Vec<Attribute<'_>>,
    grown: u64,
    sink: &mut dyn Sink,
) {
    if grown > 0 {
        let owner = Owner::Process { pid: key.tgid, comm };
        let value = PointValue::Int(grown as i64);
        with_peer(key, attributes, |attributes| sink.point(Point { metric, owner, attributes, value }));
    }
}

/// A sum of the machine's, unless it has not grown.
pub fn host(metric: &'static Metric, grown: u64, attributes: &[Attribute<'_>], sink: &mut dyn Sink) {
    if grown > 0 {
        let value = PointValue::Int(grown as i64);
        sink.point(Point { metric, owner: Owner::Host, attributes, value });
    }
}

/// A connection that is over.
pub fn connection(head: Event, record: &Connection, sink: &mut dyn Sink) {
    let (local, peer) = (address(record.local), address(record.peer));
    let (local_text, peer_text) = (local.to_string(), peer.to_string());
    let port = |port: u16| Value::Int(u16::from_be(port).into());
    let mut attributes: Vec<Attribute<'_>> = vec![
        (TRANSPORT, Value::Str("tcp")),
        (NETWORK_TYPE, Value::Str(if peer.is_ipv4() { "ipv4" } else { "ipv6" })),
        (LOCAL_ADDRESS, Value::Str(&local_text)),
        (LOCAL_PORT, port(record.local_port)),
        (PEER_ADDRESS, Value::Str(&peer_text)),
        (PEER_PORT, port(record.peer_port)),
        (STATE, Value::Str(state_name(record.state))),
        (SENT, Value::Int(record.sent as i64)),
        (RECEIVED, Value::Int(record.received as i64)),
        (SEGMENTS_SENT, Value::Int(record.segments_sent.into())),
        (SEGMENTS_RECEIVED, Value::Int(record.segments_received.into())),
        (SEGMENTS_AGAIN, Value::Int(record.retransmits.into())),
    ];
    if record.rtt_us > 0 {
        attributes.push((SPAN_RTT, Value::Double(f64::from(record.rtt_us) / 1e6)));
    }
    let is_client = record.role == u16::from(CLIENT);
    if is_client && record.established_ns > record.start_ns {
        attributes.push((CONNECTED_AFTER, Value::Double(seconds(record.established_ns - record.start_ns))));
    }
    attributes.push((NETNS, Value::Int(record.netns.into())));
    sink.span(Span {
        span: &CONNECTION,
        kind: if is_client { SpanKind::Client } else { SpanKind::Server },
        owner: Owner::Process { pid: head.tgid, comm: record.comm },
        boot_nanos: (record.start_ns, head.boot_ns),
        attributes: &attributes,
        error: error_type(record.error),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mut bytes = [0; 16];
        bytes[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        assert_eq!(address(bytes).to_string(), "127.0.0.1");
        bytes[10..].copy_from_slice(&[0, 0, 0, 0, 0, 1]);
        assert_eq!(address(bytes).to_string(), "::1");
    }

    #[test]
    fn errors_have_their_c_names() {
        assert_eq!(error_type(0), None);
        assert_eq!(error_type(libc::ECONNREFUSED as u32), Some("ECONNREFUSED"));
        assert_eq!(error_type(9999), Some("_OTHER"));
        assert_eq!(error_type(u32::MAX), None);
    }
}
