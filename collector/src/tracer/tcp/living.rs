//! What connections that live have done so far, where the kernel has no iterators: what the programs know of a connection, and
//! what its network namespace tells of its sockets (`sock_diag(7)`), are found together by its two ends.

use std::net::{IpAddr, SocketAddr};

use bpf_loader::load::Object;
use bpf_loader::map::Hash;
use bpf_programs::events::tcp::{CLIENT, Endpoints, Followed, OTHER_PEERS, OWN_PEER, SeriesKey, Traffic};
use bpf_sys::net_ns::NetNs;
use bpf_sys::sock_diag::{Family, SockDiag, TcpInfo, TcpSocket, state};

use super::ledger::{Ended, Lives, traffic_amounts};
use super::listen::MAX_NAMESPACES;
use crate::error::{Error, Result};
use crate::sorted::{SortedMap, SortedSet};

/// A connection's ends, addresses in their shortest form, and its network namespace.
type Ends = (u32, SocketAddr, SocketAddr);

/// Asks for the sockets of connections that are followed.
#[derive(Debug)]
pub struct Diag {
    connections: Hash<u64, [u8; Followed::SIZE]>,
    endpoints: Hash<u64, [u8; Endpoints::SIZE]>,
    /// Connections that the last call did not find, by socket and beginning.
    absent: SortedSet<(u64, u64)>,
}

/// Those of a dump, by what they are found by.
#[derive(Debug, Default)]
struct Sockets {
    /// Namespaces that were asked.
    namespaces: SortedSet<u32>,
    found: SortedMap<Ends, TcpSocket>,
}

impl Diag {
    /// Takes hold of the maps, and asks once.
    ///
    /// # Errors
    ///
    /// The kernel does not tell about sockets.
    pub fn open(object: &Object) -> Result<Self> {
        let asked = SockDiag::open().and_then(|mut diag| diag.tcp_sockets(Family::V4, 0, |_| {}));
        asked.map_err(Error::kernel)?;
        Ok(Self {
            connections: object.map("connections").and_then(Hash::new).map_err(Error::load)?,
            endpoints: object.map("endpoints").and_then(Hash::new).map_err(Error::load)?,
            absent: SortedSet::new(),
        })
    }

    /// The connections that live and whose process is known.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    pub fn living(&mut self) -> Result<Vec<Lives>> {
        let (mut known, mut ended) = (Vec::new(), Vec::new());
        for entry in self.endpoints.entries() {
            let (socket, bytes) = entry.map_err(Error::kernel)?;
            let connection = self.connections.get(&socket, 0).map_err(Error::kernel)?;
            let connection = connection.as_ref().and_then(|bytes| Followed::decode(bytes));
            match (connection, Endpoints::decode(&bytes)) {
                (Some(connection), Some(ends)) => known.push((socket, connection, ends)),
                // The ends are noted after the connection.
                _ => ended.push(socket),
            }
        }
        for socket in &ended {
            self.endpoints.delete(socket).map_err(Error::kernel)?;
        }
        let sockets = Sockets::of(&known.iter().map(|(_, _, ends)| ends.netns).collect());
        let mut living = Vec::new();
        let mut absent = SortedSet::new();
        for (socket, connection, ends) in &known {
            match sockets.found.get(&ends_of(ends)) {
                Some(found) => living.extend(lives(*socket, connection, ends, found)),
                None if sockets.namespaces.contains(&ends.netns) => {
                    absent.insert((*socket, connection.start_ns));
                }
                None => {}
            }
        }
        // The end of one that is gone for so long was missed: the kernel runs no program within itself.
        for (socket, _) in self.absent.iter().filter(|gone| absent.contains(gone)) {
            self.connections.delete(socket).map_err(Error::kernel)?;
            self.endpoints.delete(socket).map_err(Error::kernel)?;
        }
        self.absent = absent;
        Ok(living)
    }
}

impl Sockets {
    fn of(wanted: &SortedSet<u32>) -> Self {
        let mut all = Self::default();
        if wanted.is_empty() {
            return all;
        }
        for namespace in NetNs::list(MAX_NAMESPACES).unwrap_or_default().namespaces {
            let Some(inode) = u32::try_from(namespace.inode()).ok().filter(|inode| wanted.contains(inode))
            else {
                continue;
            };
            // The connection belongs to the namespace in which it was opened; to keep it would keep the namespace.
            let Ok(Ok(mut diag)) = namespace.enter(SockDiag::open) else { continue };
            let states = state::ALL & !(1 << state::LISTEN);
            let asked = [Family::V4, Family::V6].into_iter().try_for_each(|family| {
                let add = |socket: &TcpSocket| {
                    let ends = (inode, short(socket.local), short(socket.remote));
                    all.found.insert(ends, *socket);
                };
                diag.tcp_sockets(family, states, add).map(drop)
            });
            if asked.is_ok() {
                all.namespaces.insert(inode);
            }
        }
        all
    }
}

/// IPv4 as IPv6 maps it is IPv4.
fn short(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn ends_of(ends: &Endpoints) -> Ends {
    let end =
        |address: [u8; 16], port: u16| short(SocketAddr::new(IpAddr::from(address), u16::from_be(port)));
    (ends.netns, end(ends.local, ends.local_port), end(ends.peer, ends.peer_port))
}

fn lives(socket: u64, connection: &Followed, ends: &Endpoints, found: &TcpSocket) -> Option<Lives> {
    if connection.owner_known == 0 {
        return None;
    }
    let traffic = traffic(connection, found.state, &found.info?);
    let role = u8::try_from(connection.role).ok()?;
    let peers_told = match (ends.peer_known, connection.told_under) {
        (0, _) | (_, OTHER_PEERS) => false,
        (_, OWN_PEER) => true,
        // The programs are about to decide.
        _ => return None,
    };
    let account = SeriesKey {
        tgid: connection.tgid,
        role,
        error: 0,
        peer_port: if peers_told && role == CLIENT { ends.peer_port } else { 0 },
        peer: if peers_told { ends.peer } else { [0; 16] },
    };
    Some(Lives {
        connection: (socket, connection.start_ns),
        so_far: Ended {
            account: account.encode(),
            comm: connection.comm,
            amounts: traffic_amounts(&traffic),
        },
        rtt_us: traffic.rtt_us,
    })
}

/// As `measure` of the programs. To TCP, a FIN is a byte like others.
fn traffic(connection: &Followed, state: u8, info: &TcpInfo) -> Traffic {
    let fin_acked = u64::from(state == state::FIN_WAIT2);
    let fin_received = u64::from(matches!(state, state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING));
    let since = |now: Option<u64>, before: u64| now.unwrap_or(0).saturating_sub(before);
    let segments = |now: Option<u32>, before: u32| now.map_or(0, |now| now.wrapping_sub(before));
    Traffic {
        sent: since(info.bytes_acked, connection.base_acked + fin_acked),
        received: since(info.bytes_received, connection.base_received + fin_received),
        retransmits: info.total_retrans.wrapping_sub(connection.base_retransmits),
        rtt_us: info.rtt_us,
        segments_sent: segments(info.segs_out, connection.base_segments_sent),
        segments_received: segments(info.segs_in, connection.base_segments_received),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fins_are_no_payload() {
        let connection = Followed {
            start_ns: 1,
            base_acked: 1,
            base_received: 0,
            base_retransmits: 1,
            base_segments_sent: 0,
            base_segments_received: u32::MAX,
            tgid: 7,
            comm: [0; 16],
            role: 1,
            owner_known: 1,
            told_under: 0,
        };
        let info = TcpInfo {
            rtt_us: 5,
            total_retrans: 3,
            bytes_acked: Some(101),
            bytes_received: Some(51),
            segs_out: Some(4),
            segs_in: Some(2),
        };
        let of = |state| traffic(&connection, state, &info);
        assert_eq!((of(state::ESTABLISHED).sent, of(state::ESTABLISHED).received), (100, 51));
        assert_eq!((of(state::FIN_WAIT2).sent, of(state::FIN_WAIT2).received), (99, 51));
        assert_eq!((of(state::LAST_ACK).sent, of(state::LAST_ACK).received), (100, 50));
        let traffic = of(state::ESTABLISHED);
        assert_eq!((traffic.retransmits, traffic.segments_sent, traffic.segments_received), (2, 4, 3));
    }
}
